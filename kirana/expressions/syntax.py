"""Check the syntax tree of an expression, and rewrite it so that it works on columns.

The syntax is a subset of Python's: numbers, names, strings in comparisons, arithmetic, comparisons,
`and`, `or`, `not` and the functions of `FUNCTIONS`. This module does not evaluate anything.
"""

from __future__ import annotations

import ast

from kirana.errors import InvalidInput, did_you_mean
from kirana.expressions.functions import FUNCTIONS
from kirana.expressions.kinds import Uses

MAX_OPERATIONS = 500
"""The maximum number of operators, calls and numeric operands in an expression."""

MAX_BUCKETS = 1 << 31
"""The maximum number of buckets of `hash`."""

AS_SENT = "_as_sent_"
"""The prefix of names whose values are used as they were sent.

Under other names, integers become floats. A float would round an id of 17 digits.
"""

_BINARY = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.Pow, ast.Mod)
_ORDER = (ast.Lt, ast.LtE, ast.Gt, ast.GtE)


class Syntax:
    """The checks and rewrites of one expression. `uses` collects its names.

    After the rewrite, `and`, `or` and `not` work on columns. Integer constants are floats, except
    operands of `==` and `!=`, and the buckets of `hash`.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.uses = Uses()
        self._operations = 0

    def rewrite(self, tree: ast.Expression) -> ast.Expression:
        """Return the rewritten tree. Raise `InvalidInput` for syntax that is not allowed."""
        body = tree.body
        if isinstance(body, ast.Name):
            return ast.Expression(self._name(body, self.uses.tested))
        return ast.Expression(self._truth(body))

    def _error(self, node: ast.AST, reason: str) -> InvalidInput:
        """Return the error to raise for `node`, with its position in the text."""
        column = getattr(node, "col_offset", 0) + 1
        return InvalidInput(f"'{self.text}', column {column}: {reason}")

    def _count(self, node: ast.AST) -> None:
        self._operations += 1
        if self._operations > MAX_OPERATIONS:
            raise self._error(node, f"an expression has at most {MAX_OPERATIONS} operations")

    def _truth(self, node: ast.expr) -> ast.expr:
        """Rewrite an operand that is used as true or false."""
        if isinstance(node, ast.Name):
            return self._name(node, self.uses.tested)
        return self._number(node)

    def _number(self, node: ast.expr) -> ast.expr:
        """Rewrite an operand that is used as a number."""
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
                raise self._error(node, "the operator '~' is not allowed")
            case ast.BinOp():
                return self._arithmetic(node)
            case ast.Compare():
                return self._comparison(node)
            case ast.BoolOp():
                return self._logic(node)
            case ast.Call():
                return self._call(node)
            case ast.Attribute():
                raise self._error(
                    node, "a name must not have a dot: features can't be used in an expression"
                )
        raise self._error(
            node, "this is not allowed here: use numbers, names, operators and functions"
        )

    def _name(self, node: ast.Name, use: set[str], prefix: str = "") -> ast.Name:
        if node.id in FUNCTIONS:
            raise self._error(node, f"'{node.id}' is a function: call it with arguments")
        if node.id.startswith("_"):
            raise self._error(node, f"'{node.id}' is not a valid name: it starts with '_'")
        use.add(node.id)
        return ast.Name(prefix + node.id, ast.Load())

    def _constant(self, node: ast.Constant) -> ast.Constant:
        if isinstance(node.value, bool | float):
            return node
        if isinstance(node.value, int):
            try:
                return ast.Constant(float(node.value))
            except OverflowError:
                raise self._error(node, "the number is too large") from None
        if isinstance(node.value, str):
            raise self._error(node, "text can only be compared, with == or !=")
        raise self._error(node, "only numbers, strings, True and False are allowed")

    def _arithmetic(self, node: ast.BinOp) -> ast.expr:
        if not isinstance(node.op, _BINARY):
            raise self._error(node, "the operator must be one of + - * / ** %")
        left, right = self._number(node.left), self._number(node.right)
        if isinstance(node.op, ast.Pow):
            return _call("_power", left, right)
        return ast.BinOp(left, node.op, right)

    def _comparison(self, node: ast.Compare) -> ast.expr:
        if len(node.ops) == 1:
            (operator,), (right,) = node.ops, node.comparators
            if isinstance(operator, _ORDER):
                return ast.Compare(self._number(node.left), [operator], [self._number(right)])
            if isinstance(operator, ast.Eq | ast.NotEq):
                name = "_equal" if isinstance(operator, ast.Eq) else "_not_equal"
                return _call(name, self._compared(node.left), self._compared(right))
        raise self._error(node, "a comparison must have two operands and one of == != < <= > >=")

    def _compared(self, node: ast.expr) -> ast.expr:
        """Rewrite an operand of `==` or `!=`. Integers and names keep their exact values."""
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
        if not isinstance(node.func, ast.Name):
            raise self._error(node, f"only functions can be called: {', '.join(FUNCTIONS)}")
        name = node.func.id
        if name not in FUNCTIONS:
            raise self._error(node, f"unknown function '{name}': {did_you_mean(name, FUNCTIONS)}")
        if node.keywords:
            raise self._error(node, f"'{name}' takes arguments by position, not by name")
        count = FUNCTIONS[name][0]
        if len(node.args) != count:
            arguments = "1 argument" if count == 1 else f"{count} arguments"
            raise self._error(node, f"'{name}' takes {arguments}, not {len(node.args)}")
        if name == "where":
            condition, *values = node.args
            return _call(name, self._truth(condition), *map(self._number, values))
        if name == "size":
            return _call(name, self._single_name(node.args[0], name, self.uses.sized))
        if name in ("number", "hash"):
            id_ = self._single_name(node.args[0], name, self.uses.ids)
            return _call(name, id_, *self._salt_and_buckets(node) if name == "hash" else ())
        return _call(name, *map(self._number, node.args))

    def _single_name(self, node: ast.expr, function: str, use: set[str]) -> ast.expr:
        """Return the first argument of a function that takes only a name there."""
        if not isinstance(node, ast.Name):
            raise self._error(node, f"'{function}' takes a name, not an expression")
        return self._name(node, use, AS_SENT)

    def _salt_and_buckets(self, node: ast.Call) -> list[ast.expr]:
        """Return the salt and the buckets of `hash`, which must be constants."""
        _, salt, buckets = node.args
        if not isinstance(salt, ast.Constant) or not isinstance(salt.value, str):
            raise self._error(salt, "the salt of 'hash' must be a string in quotes")
        is_integer = isinstance(buckets, ast.Constant) and type(buckets.value) is int
        if not is_integer or not 1 <= buckets.value <= MAX_BUCKETS:  # type: ignore[attr-defined]
            raise self._error(
                buckets,
                f"the buckets of 'hash' must be an integer from 1 to {MAX_BUCKETS}",
            )
        return [salt, buckets]


def _call(name: str, *arguments: ast.expr) -> ast.Call:
    return ast.Call(ast.Name(name, ast.Load()), list(arguments), [])
