"""Arithmetic that people write in a catalog: scores over columns, conditions over a request."""

from kirana.expressions.expression import MAX_LENGTH, Expression
from kirana.expressions.functions import FUNCTIONS
from kirana.expressions.kinds import Kind

__all__ = ["FUNCTIONS", "MAX_LENGTH", "Expression", "Kind"]
