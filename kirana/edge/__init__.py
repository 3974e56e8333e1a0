"""The contract: routes, messages and limits, behind every door."""

from kirana.edge.app import Edge
from kirana.edge.limits import Limits
from kirana.edge.resources import Resources

__all__ = ["Edge", "Limits", "Resources"]
