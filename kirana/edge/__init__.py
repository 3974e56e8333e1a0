"""The HTTP contract as one ASGI application, mounted by every door."""

from kirana.edge.app import Edge
from kirana.edge.limits import Limits

__all__ = ["Edge", "Limits"]
