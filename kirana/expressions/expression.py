"""Expressions, each compiled once and evaluated many times."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

import numpy as np

from kirana.errors import InvalidInput, did_you_mean
from kirana.expressions.functions import FUNCTIONS, equal, not_equal, power
from kirana.expressions.kinds import Kind
from kirana.expressions.syntax import AS_SENT, Syntax

MAX_LENGTH = 2_000
"""The maximum number of characters in an expression."""

_GLOBALS: dict[str, Any] = {
    **{name: function for name, (_, function) in FUNCTIONS.items()},
    "__builtins__": {},
    "_and": np.logical_and,
    "_equal": equal,
    "_not": np.logical_not,
    "_not_equal": not_equal,
    "_or": np.logical_or,
    "_power": power,
}


class Expression:
    """A compiled expression. Call it with its variables to evaluate it.

    `names` are the variables that it reads. A variable may be a column, an array of shape (rows,).
    The constructor raises `InvalidInput` for text that is not allowed. If the position of the error
    is known, the message gives it as `column N`.
    """

    def __init__(self, text: str) -> None:
        self.text = text.strip()
        if len(text) > MAX_LENGTH:
            raise InvalidInput(
                f"the expression has {len(text)} characters, the limit is {MAX_LENGTH}"
            )
        syntax = Syntax(self.text)
        try:
            tree = ast.parse(self.text, mode="eval")
            body = tree.body
            # An expression that is a single name needs no evaluation.
            self._lone_name = body.id if isinstance(body, ast.Name) else None
            checked = ast.fix_missing_locations(syntax.rewrite(tree))
            self._code = compile(checked, "<expression>", "eval")
        except SyntaxError as error:
            raise InvalidInput(f"'{self.text}', column {error.offset}: {error.msg}") from None
        except (RecursionError, MemoryError, ValueError) as error:
            raise InvalidInput(
                f"'{self.text[:60]}' can't be read as an expression: {error}"
            ) from None
        self._uses = uses = syntax.uses
        self.names = uses.names
        self._floats = uses.calculated | uses.tested
        self._as_sent = [(AS_SENT + name, name) for name in uses.compared | uses.sized | uses.ids]
        self._numbers = set(uses.calculated)
        """The names whose values must be numbers."""
        self._texts: set[str] = set()
        """The names whose values must be text."""

    def require(self, known: Mapping[str, object] | frozenset[str]) -> None:
        """Raise `InvalidInput` for a variable that is not in `known`."""
        for name in sorted(self.names):
            if name not in known:
                raise InvalidInput(
                    f"'{self.text}': unknown name '{name}': {did_you_mean(name, known)}"
                )

    def require_kinds(self, kinds: Mapping[str, Kind]) -> None:
        """Raise `InvalidInput` if a name is used in a way that its kind does not allow.

        Names that are not in `kinds` are `Kind.UNKNOWN`. After this call, the value of a
        `Kind.NUMBER` must be a number, and the value of a `Kind.TEXT` must be text or an integer.
        """
        try:
            self._uses.check(kinds)
        except InvalidInput as error:
            raise InvalidInput(f"'{self.text}': {error.message}") from None
        self._numbers |= {name for name in self.names if kinds.get(name) is Kind.NUMBER}
        self._texts |= {name for name in self.names if kinds.get(name) is Kind.TEXT}

    def __call__(self, variables: Mapping[str, Any]) -> Any:
        """Return the value of the expression: one number or truth value, or a column of them.

        An expression that is a single name returns the value of this variable, an `int` as a float.
        Raise `InvalidInput` if a variable is missing, or if the expression can't be evaluated with
        these values. If a value is of the wrong kind, the error's `field` is the name of the
        variable.
        """
        try:
            if self._lone_name is not None:
                value = variables[self._lone_name]
                self._require_kind(self._lone_name, value)
                return _as_float(value)
            with np.errstate(all="ignore"):
                return eval(self._code, _GLOBALS, self._values(variables))
        except KeyError as error:
            raise InvalidInput(f"'{self.text}' needs a value for {error}") from None
        except (TypeError, ValueError, ArithmeticError, RecursionError) as error:
            raise InvalidInput(f"'{self.text}' can't be evaluated: {error}") from None

    def _values(self, variables: Mapping[str, Any]) -> dict[str, Any]:
        """Return the variables under the names that the compiled code reads."""
        for name in self.names:
            self._require_kind(name, variables[name])
        values = {name: _as_float(variables[name]) for name in self._floats}
        values.update((as_sent, variables[name]) for as_sent, name in self._as_sent)
        return values

    def _require_kind(self, name: str, value: object) -> None:
        """Raise `InvalidInput` if the value of a variable must be a number or text, and is not."""
        kind = None
        if name in self._numbers and not _is_number(value):
            kind = "a number"
        elif name in self._texts and not _is_text(value):
            kind = "text"
        if kind is not None:
            message = f"'{self.text}': '{name}' must be {kind}, not {_described(value)}"
            raise InvalidInput(message, field=name)

    def holds(self, variables: Mapping[str, Any]) -> bool:
        """Return whether a condition is true.

        Raise `InvalidInput` as a call does, and if the value is a column without exactly one row.
        """
        try:
            return bool(self(variables))
        except ValueError as error:
            raise InvalidInput(f"'{self.text}' is not true or false: {error}") from None


def _is_number(value: object) -> bool:
    if isinstance(value, np.ndarray):
        return value.dtype.kind in "fiub"
    return isinstance(value, bool | int | float | np.number | np.bool_)


def _is_text(value: object) -> bool:
    """Return whether a value is text, or an id that was sent as an integer."""
    return isinstance(value, str | int) and not isinstance(value, bool)


def _described(value: object) -> str:
    return f"the text {value[:40]!r}" if isinstance(value, str) else type(value).__name__


def _as_float(value: Any) -> Any:
    """Return an `int` as a float, and any other value as it is.

    Powers of integers can become too large to compute.
    """
    return float(value) if type(value) is int else value
