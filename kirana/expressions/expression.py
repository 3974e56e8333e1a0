"""An expression: checked and compiled once, evaluated often."""

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
    """`names` are the variables that it reads. Columns are numpy arrays of shape (rows,).

    Raises `InvalidInput` that points at what is not allowed.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        if len(text) > MAX_LENGTH:
            raise InvalidInput(f"an expression has at most {MAX_LENGTH} characters")
        syntax = Syntax(text)
        try:
            tree = ast.parse(text.strip(), mode="eval")
            body = tree.body
            # a model's output as it is: the usual score
            self._alone = body.id if isinstance(body, ast.Name) else None
            checked = ast.fix_missing_locations(syntax.rewrite(tree))
            self._code = compile(checked, "<expression>", "eval")
        except SyntaxError as error:
            raise InvalidInput(f"'{text}', column {error.offset}: {error.msg}") from None
        except (RecursionError, MemoryError, ValueError) as error:
            raise InvalidInput(f"'{text[:60]}' can't be read as an expression: {error}") from None
        self._uses = syntax.uses
        self.names = self._uses.names
        uses = syntax.uses
        self._floats = uses.calculated | uses.tested
        self._as_sent = [(AS_SENT + name, name) for name in uses.compared | uses.sized | uses.ids]
        self._numbers = set(uses.calculated)
        self._texts: set[str] = set()

    def require(self, known: Mapping[str, object] | frozenset[str]) -> None:
        """Raise `InvalidInput` for a variable that is not among `known`."""
        for name in sorted(self.names):
            if name not in known:
                raise InvalidInput(f"'{self.text}': unknown '{name}', {did_you_mean(name, known)}")

    def require_kinds(self, kinds: Mapping[str, Kind]) -> None:
        """Raise `InvalidInput` where a name is used as what it is not; others are of no kind.

        From then on values of another kind are refused.
        """
        try:
            self._uses.check(kinds)
        except InvalidInput as error:
            raise InvalidInput(f"'{self.text}': {error.message}") from None
        self._numbers |= {name for name in self.names if kinds.get(name) is Kind.NUMBER}
        self._texts |= {name for name in self.names if kinds.get(name) is Kind.TEXT}

    def __call__(self, variables: Mapping[str, Any]) -> Any:
        """Evaluate. Raises `InvalidInput` where the values don't fit; `field` names which."""
        try:
            if self._alone is not None:
                self._require(self._alone, variables[self._alone])
                return _as_float(variables[self._alone])
            with np.errstate(all="ignore"):
                return eval(self._code, _GLOBALS, self._values(variables))
        except KeyError as error:
            raise InvalidInput(f"'{self.text}' needs {error}") from None
        except (TypeError, ValueError, ArithmeticError, RecursionError) as error:
            raise InvalidInput(f"'{self.text}' can't be evaluated: {error}") from None

    def _values(self, variables: Mapping[str, Any]) -> dict[str, Any]:
        for name in self.names:
            self._require(name, variables[name])
        values = {name: _as_float(variables[name]) for name in self._floats}
        values.update((as_sent, variables[name]) for as_sent, name in self._as_sent)
        return values

    def _require(self, name: str, value: object) -> None:
        """Raise `InvalidInput` for a value that is not of the kind of its name."""
        kind = None
        if name in self._numbers and not _is_number(value):
            kind = "a number"
        elif name in self._texts and not _is_text(value):
            kind = "text"
        if kind is not None:
            message = f"'{self.text}': '{name}' must be {kind}, not {_described(value)}"
            raise InvalidInput(message, field=name)

    def holds(self, variables: Mapping[str, Any]) -> bool:
        """Evaluate a condition. Raises `InvalidInput` if it comes to more than one truth."""
        try:
            return bool(self(variables))
        except ValueError as error:
            raise InvalidInput(f"'{self.text}' is not true or false: {error}") from None


def _is_number(value: object) -> bool:
    if isinstance(value, np.ndarray):
        return value.dtype.kind in "fiub"
    return isinstance(value, bool | int | float | np.number | np.bool_)


def _is_text(value: object) -> bool:
    """Tell whether it is text, or an id that was sent as a number."""
    return isinstance(value, str | int) and not isinstance(value, bool)


def _described(value: object) -> str:
    return f"the text {value[:40]!r}" if isinstance(value, str) else type(value).__name__


def _as_float(value: Any) -> Any:
    """Integers of any size would make powers that never end; floats end at infinity."""
    return float(value) if type(value) is int else value
