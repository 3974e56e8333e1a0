from tests.unit.inmost_loops import inmost_loops

__all__ = ["inmost_loops"]
