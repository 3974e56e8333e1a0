"""History: features as they were at given times, from the archive.

from kirana.history import history
"""

from kirana.history.join import history, history_batches

__all__ = ["history", "history_batches"]
