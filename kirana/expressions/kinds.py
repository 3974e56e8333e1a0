"""The kinds of values that names stand for, and how an expression may use each kind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto

from kirana.errors import InvalidInput


class Kind(Enum):
    """The kind of value that a name stands for, as known when a catalog is checked."""

    NUMBER = auto()
    """A number, or a column of numbers."""
    TEXT = auto()
    """Text. An id is text even if a request sends it as a number."""
    ITEMS = auto()
    """The candidates or interactions that a node of a flow returns."""
    UNKNOWN = auto()
    """Not declared. A request may send any value."""


@dataclass(slots=True)
class Uses:
    """The names in an expression, grouped by how it uses them."""

    calculated: set[str] = field(default_factory=set)
    """Names that are used as numbers."""
    compared: set[str] = field(default_factory=set)
    """Operands of `==` and `!=`."""
    sized: set[str] = field(default_factory=set)
    """Arguments of `size`."""
    ids: set[str] = field(default_factory=set)
    """Arguments of `number` and `hash`."""
    tested: set[str] = field(default_factory=set)
    """Names that are used as true or false. A name that is the whole expression is one of them."""

    @property
    def names(self) -> frozenset[str]:
        """All names in the expression."""
        return frozenset(self.calculated | self.compared | self.sized | self.ids | self.tested)

    def check(self, kinds: Mapping[str, Kind]) -> None:
        """Raise `InvalidInput` if a name is used in a way that its kind does not allow."""
        for name in sorted(self.calculated):
            reason = _NO_NUMBER[kinds.get(name, Kind.UNKNOWN)]
            if reason is not None:
                raise InvalidInput(reason.format(name=name))
        for name in sorted(self.tested):
            kind = kinds.get(name, Kind.UNKNOWN)
            if kind in (Kind.TEXT, Kind.UNKNOWN):
                raise InvalidInput(_NO_TRUTH[kind].format(name=name))
        for name in sorted(self.compared | self.ids):
            if kinds.get(name) is Kind.ITEMS:
                use = f"compare size({name})" if name in self.compared else "it has no id"
                raise InvalidInput(f"'{name}' is a node: {use}")
        for name in sorted(self.ids):
            if kinds.get(name) is Kind.NUMBER:
                raise InvalidInput(f"'{name}' is already a number: 'number' and 'hash' take ids")
        for name in sorted(self.sized):
            if kinds.get(name) is Kind.NUMBER:
                raise InvalidInput(f"'{name}' is a number: it has no size")


_NO_TRUTH = {
    Kind.TEXT: (
        "'{name}' is text, which is neither true nor false: compare it, for example {name} == 'x'"
    ),
    Kind.UNKNOWN: (
        "the type of '{name}' is not declared: declare it in the flow, for example "
        "context: {{{name}: number}}"
    ),
}
_NO_NUMBER: dict[Kind, str | None] = {
    Kind.NUMBER: None,
    Kind.TEXT: (
        "'{name}' is text, not a number: convert an id with number({name}), or map it to a number "
        'from 0 to 99 with hash({name}, "salt", 100)'
    ),
    Kind.ITEMS: "'{name}' is a node, not a number: size({name}) is the number of its items",
    Kind.UNKNOWN: (
        "the type of '{name}' is not declared: declare it in the flow, for example "
        "context: {{{name}: number}}"
    ),
}
