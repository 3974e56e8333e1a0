"""The expressions of a catalog: scores over columns, and conditions over a request."""

from kirana.expressions.expression import MAX_LENGTH, Expression
from kirana.expressions.functions import FUNCTIONS
from kirana.expressions.kinds import Kind

__all__ = ["FUNCTIONS", "MAX_LENGTH", "Expression", "Kind"]
