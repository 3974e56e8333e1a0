"""Arithmetic that people write in a catalog: scores over columns, conditions over a request.

The syntax is Python's, of which numbers, names, strings to compare with, arithmetic, comparison,
`and or not` and the functions below are allowed. Columns are numpy arrays of shape (rows,).
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sized
from typing import Any

import numpy as np

from kirana.errors import InvalidInput, did_you_mean

MAX_LENGTH = 2_000


def _size(value: object) -> int:
    return len(value) if isinstance(value, Sized) else 0


def _power(base: Any, exponent: Any) -> Any:
    """Return NaN where there is no real power; `**` would make a complex number of it."""
    if isinstance(base, np.ndarray) or isinstance(exponent, np.ndarray):
        return np.float_power(base, exponent)
    found = base**exponent
    return float("nan") if isinstance(found, complex) else found


FUNCTIONS: dict[str, tuple[int, Callable[..., Any]]] = {
    "abs": (1, np.abs),
    "clip": (3, np.clip),
    "exp": (1, np.exp),
    "log": (1, np.log),
    "log1p": (1, np.log1p),
    "max": (2, np.maximum),
    "min": (2, np.minimum),
    "sigmoid": (1, lambda x: 1.0 / (1.0 + np.exp(-x))),
    "size": (1, _size),
    "sqrt": (1, np.sqrt),
    "where": (3, np.where),
}
"""By name: how many arguments, and what is called."""

_BINARY = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.Pow, ast.Mod)
_COMPARE = (ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE)


class _ToNumpy(ast.NodeTransformer):
    """Refuse what is not allowed; make booleans work on columns and integers into floats."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.names: set[str] = set()

    def refuse(self, node: ast.AST, what: str) -> InvalidInput:
        column = getattr(node, "col_offset", 0) + 1
        return InvalidInput(f"'{self.text}', column {column}: {what}")

    def generic_visit(self, node: ast.AST) -> ast.AST:
        raise self.refuse(node, f"{type(node).__name__} is not allowed in an expression")

    def visit_Expression(self, node: ast.Expression) -> ast.Expression:
        return ast.Expression(self.visit(node.body))

    def visit_Constant(self, node: ast.Constant) -> ast.Constant:
        if isinstance(node.value, bool | float):
            return node
        if isinstance(node.value, int):
            try:
                return ast.Constant(float(node.value))
            except OverflowError:
                raise self.refuse(node, "the number is too large") from None
        if isinstance(node.value, str):
            raise self.refuse(node, "text is only there to compare with")
        raise self.refuse(node, "only numbers, strings, True and False are allowed")

    def visit_Name(self, node: ast.Name) -> ast.Name:
        if node.id in FUNCTIONS:
            raise self.refuse(node, f"'{node.id}' is a function: give it its arguments")
        if node.id.startswith("_"):
            raise self.refuse(node, f"'{node.id}' can't be a name here")
        self.names.add(node.id)
        return node

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.expr:
        operand = self.visit(node.operand)
        if isinstance(node.op, ast.Not):
            return _call("_not", [operand])
        if isinstance(node.op, ast.USub | ast.UAdd):
            return ast.UnaryOp(node.op, operand)
        raise self.refuse(node, "this operator is not allowed")

    def visit_BinOp(self, node: ast.BinOp) -> ast.expr:
        if not isinstance(node.op, _BINARY):
            raise self.refuse(node, "the operators are + - * / ** %")
        left, right = self.visit(node.left), self.visit(node.right)
        if isinstance(node.op, ast.Pow):
            return _call("_power", [left, right])
        return ast.BinOp(left, node.op, right)

    def visit_Compare(self, node: ast.Compare) -> ast.expr:
        if len(node.ops) != 1 or not isinstance(node.ops[0], _COMPARE):
            raise self.refuse(node, "compare two values by == != < <= > >=")
        left, right = (self._operand(each) for each in (node.left, node.comparators[0]))
        return ast.Compare(left, node.ops, [right])

    def _operand(self, node: ast.expr) -> ast.expr:
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            return node
        visited: ast.expr = self.visit(node)
        return visited

    def visit_BoolOp(self, node: ast.BoolOp) -> ast.expr:
        name = "_and" if isinstance(node.op, ast.And) else "_or"
        result: ast.expr = self.visit(node.values[0])
        for value in node.values[1:]:
            result = _call(name, [result, self.visit(value)])
        return result

    def visit_Call(self, node: ast.Call) -> ast.expr:
        if not isinstance(node.func, ast.Name) or node.func.id not in FUNCTIONS:
            name = node.func.id if isinstance(node.func, ast.Name) else "this"
            raise self.refuse(node, f"unknown function '{name}': {did_you_mean(name, FUNCTIONS)}")
        count = FUNCTIONS[node.func.id][0]
        if node.keywords or len(node.args) != count:
            raise self.refuse(node, f"'{node.func.id}' takes {count} arguments, without names")
        return _call(node.func.id, [self.visit(each) for each in node.args])


def _call(name: str, arguments: list[ast.expr]) -> ast.Call:
    return ast.Call(ast.Name(name, ast.Load()), arguments, [])


_GLOBALS: dict[str, Any] = {
    **{name: function for name, (_, function) in FUNCTIONS.items()},
    "__builtins__": {},
    "_and": np.logical_and,
    "_or": np.logical_or,
    "_not": np.logical_not,
    "_power": _power,
}


class Expression:
    """Checked and compiled once, evaluated often. `names` are the variables that it reads.

    Raises `InvalidInput` that points at what is not allowed.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        if len(text) > MAX_LENGTH:
            raise InvalidInput(f"an expression has at most {MAX_LENGTH} characters")
        try:
            tree = ast.parse(text.strip(), mode="eval")
            transformer = _ToNumpy(text)
            checked = ast.fix_missing_locations(transformer.visit(tree))
            self._code = compile(checked, "<expression>", "eval")
            body = checked.body
            # a model's output as it is: the usual score
            self._alone = body.id if isinstance(body, ast.Name) else None
        except SyntaxError as error:
            raise InvalidInput(f"'{text}', column {error.offset}: {error.msg}") from None
        except (RecursionError, MemoryError, ValueError) as error:
            raise InvalidInput(f"'{text[:60]}' can't be read as an expression: {error}") from None
        self.names = frozenset(transformer.names)

    def require(self, known: Mapping[str, object] | frozenset[str]) -> None:
        """Raise `InvalidInput` for a variable that is not among `known`."""
        for name in sorted(self.names):
            if name not in known:
                raise InvalidInput(f"'{self.text}': unknown '{name}', {did_you_mean(name, known)}")

    def __call__(self, variables: Mapping[str, Any]) -> Any:
        """Evaluate. Raises `InvalidInput` where the values don't fit the expression."""
        try:
            if self._alone is not None:
                return _number(variables[self._alone])
            values = {name: _number(variables[name]) for name in self.names}
            with np.errstate(all="ignore"):
                return eval(self._code, _GLOBALS, values)
        except KeyError as error:
            raise InvalidInput(f"'{self.text}' needs {error}") from None
        except (TypeError, ValueError, ArithmeticError, RecursionError) as error:
            raise InvalidInput(f"'{self.text}' can't be evaluated: {error}") from None

    def holds(self, variables: Mapping[str, Any]) -> bool:
        """Evaluate a condition. Raises `InvalidInput` if it comes to more than one truth."""
        try:
            return bool(self(variables))
        except ValueError as error:
            raise InvalidInput(f"'{self.text}' is not true or false: {error}") from None


def _number(value: Any) -> Any:
    """Integers of any size would make powers that never end; floats end at infinity."""
    return float(value) if type(value) is int else value
