"""The HTTP contract: the routes, messages, limits and replies that all doors share."""

from kirana.edge.app import Edge
from kirana.edge.limits import Limits
from kirana.edge.resources import Resources

__all__ = ["Edge", "Limits", "Resources"]
