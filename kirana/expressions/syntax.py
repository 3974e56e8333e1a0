"""From the text of an expression to code: what is not allowed is refused, what is used is noted.

The syntax is Python's, of which numbers, names, strings to compare with, arithmetic, comparison,
`and or not` and the functions are allowed. Nothing is evaluated here.
"""

from __future__ import annotations

import ast

from kirana.errors import InvalidInput, did_you_mean
from kirana.expressions.functions import FUNCTIONS
from kirana.expressions.kinds import Uses

MAX_OPERATIONS = 500
"""Of one expression: it is computed on the event loop, over as many rows as a request has."""

MAX_BUCKETS = 1 << 31
AS_SENT = "_as_sent_"
"""Before a name: its value without becoming a float, for an id of 17 digits is no float64."""

_BINARY = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.Pow, ast.Mod)
_ORDER = (ast.Lt, ast.LtE, ast.Gt, ast.GtE)


class Syntax:
    """Rewrites a tree so that booleans work on columns, and integers are floats."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.uses = Uses()
        self._operations = 0

    def rewrite(self, tree: ast.Expression) -> ast.Expression:
        """Raises `InvalidInput` that points at what is not allowed."""
        body = tree.body
        if isinstance(body, ast.Name):
            return ast.Expression(self._name(body, self.uses.tested))
        return ast.Expression(self._truth(body))

    def refuse(self, node: ast.AST, what: str) -> InvalidInput:
        column = getattr(node, "col_offset", 0) + 1
        return InvalidInput(f"'{self.text}', column {column}: {what}")

    def _count(self, node: ast.AST) -> None:
        self._operations += 1
        if self._operations > MAX_OPERATIONS:
            raise self.refuse(node, f"an expression has at most {MAX_OPERATIONS} operations")

    def _truth(self, node: ast.expr) -> ast.expr:
        """Rewrite what may be true or false, or a number."""
        if isinstance(node, ast.Name):
            return self._name(node, self.uses.tested)
        return self._number(node)

    def _number(self, node: ast.expr) -> ast.expr:
        """Rewrite what must be a number."""
        self._count(node)
        match node:
            case ast.Name():
                return self._name(node, self.uses.calculated)
            case ast.Constant():
                return self._constant(node)
            case ast.UnaryOp(ast.Not(), operand):
                return _call("_not", self._truth(operand))
            case ast.UnaryOp(ast.USub() | ast.UAdd(), operand):
                return ast.UnaryOp(node.op, self._number(operand))
            case ast.UnaryOp():
                raise self.refuse(node, "this operator is not allowed")
            case ast.BinOp():
                return self._arithmetic(node)
            case ast.Compare():
                return self._comparison(node)
            case ast.BoolOp():
                return self._logic(node)
            case ast.Call():
                return self._call(node)
            case ast.Attribute():
                raise self.refuse(node, "features can't be named in an expression")
        raise self.refuse(node, f"{type(node).__name__} is not allowed in an expression")

    def _name(self, node: ast.Name, use: set[str], prefix: str = "") -> ast.Name:
        if node.id in FUNCTIONS:
            raise self.refuse(node, f"'{node.id}' is a function: give it its arguments")
        if node.id.startswith("_"):
            raise self.refuse(node, f"'{node.id}' can't be a name here")
        use.add(node.id)
        return ast.Name(prefix + node.id, ast.Load())

    def _constant(self, node: ast.Constant) -> ast.Constant:
        if isinstance(node.value, bool | float):
            return node
        if isinstance(node.value, int):
            try:
                return ast.Constant(float(node.value))
            except OverflowError:
                raise self.refuse(node, "the number is too large") from None
        if isinstance(node.value, str):
            raise self.refuse(node, "text can only be compared")
        raise self.refuse(node, "only numbers, strings, True and False are allowed")

    def _arithmetic(self, node: ast.BinOp) -> ast.expr:
        if not isinstance(node.op, _BINARY):
            raise self.refuse(node, "the operators are + - * / ** %")
        left, right = self._number(node.left), self._number(node.right)
        if isinstance(node.op, ast.Pow):
            return _call("_power", left, right)
        return ast.BinOp(left, node.op, right)

    def _comparison(self, node: ast.Compare) -> ast.expr:
        if len(node.ops) == 1:
            (operator,), (other,) = node.ops, node.comparators
            if isinstance(operator, _ORDER):
                return ast.Compare(self._number(node.left), [operator], [self._number(other)])
            if isinstance(operator, ast.Eq | ast.NotEq):
                name = "_equal" if isinstance(operator, ast.Eq) else "_not_equal"
                return _call(name, self._compared(node.left), self._compared(other))
        raise self.refuse(node, "compare two values by == != < <= > >=")

    def _compared(self, node: ast.expr) -> ast.expr:
        if isinstance(node, ast.Constant) and type(node.value) in (str, int):
            return node
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            inner = node.operand
            if isinstance(inner, ast.Constant) and type(inner.value) is int:
                return ast.Constant(-inner.value)
        if isinstance(node, ast.Name):
            return self._name(node, self.uses.compared, AS_SENT)
        return self._number(node)

    def _logic(self, node: ast.BoolOp) -> ast.expr:
        name = "_and" if isinstance(node.op, ast.And) else "_or"
        result = self._truth(node.values[0])
        for value in node.values[1:]:
            self._count(value)
            result = _call(name, result, self._truth(value))
        return result

    def _call(self, node: ast.Call) -> ast.expr:
        if not isinstance(node.func, ast.Name) or node.func.id not in FUNCTIONS:
            name = node.func.id if isinstance(node.func, ast.Name) else "this"
            raise self.refuse(node, f"unknown function '{name}': {did_you_mean(name, FUNCTIONS)}")
        name = node.func.id
        count = FUNCTIONS[name][0]
        if node.keywords or len(node.args) != count:
            raise self.refuse(node, f"'{name}' takes {count} arguments, without keywords")
        if name == "where":
            condition, *values = node.args
            return _call(name, self._truth(condition), *map(self._number, values))
        if name == "size":
            return _call(name, self._alone(node.args[0], name, self.uses.sized))
        if name in ("number", "hash"):
            id_ = self._alone(node.args[0], name, self.uses.ids)
            return _call(name, id_, *self._split(node) if name == "hash" else ())
        return _call(name, *map(self._number, node.args))

    def _alone(self, node: ast.expr, function: str, use: set[str]) -> ast.expr:
        if not isinstance(node, ast.Name):
            raise self.refuse(node, f"'{function}' takes a name")
        return self._name(node, use, AS_SENT)

    def _split(self, node: ast.Call) -> list[ast.expr]:
        """Check salt and buckets of `hash`, which must not depend on a request."""
        _, salt, buckets = node.args
        if not isinstance(salt, ast.Constant) or not isinstance(salt.value, str):
            raise self.refuse(salt, "the salt of 'hash' must be a text in quotes")
        whole = isinstance(buckets, ast.Constant) and type(buckets.value) is int
        if not whole or not 1 <= buckets.value <= MAX_BUCKETS:  # type: ignore[attr-defined]
            raise self.refuse(
                buckets, f"the buckets of 'hash' must be a number from 1 to {MAX_BUCKETS}"
            )
        return [salt, buckets]


def _call(name: str, *arguments: ast.expr) -> ast.Call:
    return ast.Call(ast.Name(name, ast.Load()), list(arguments), [])
