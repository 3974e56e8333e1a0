"""What kind of value a name stands for, and whether an expression may use it as it does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto

from kirana.errors import InvalidInput


class Kind(Enum):
    """What is known of the value of a name before there is one."""

    NUMBER = auto()
    """A number, or a column of numbers."""
    TEXT = auto()
    """Text. An id is text, also where it is sent as a number."""
    ITEMS = auto()
    """What a node of a flow gives."""
    UNKNOWN = auto()
    """Nothing was declared: a request may send anything."""


@dataclass(slots=True)
class Uses:
    """The names of an expression by what it does with them."""

    calculated: set[str] = field(default_factory=set)
    compared: set[str] = field(default_factory=set)
    sized: set[str] = field(default_factory=set)
    ids: set[str] = field(default_factory=set)
    """Arguments of `number` and `hash`."""
    tested: set[str] = field(default_factory=set)
    """Where only their truth counts, or they are the whole expression."""

    @property
    def names(self) -> frozenset[str]:
        return frozenset(self.calculated | self.compared | self.sized | self.ids | self.tested)

    def check(self, kinds: Mapping[str, Kind]) -> None:
        """Raise `InvalidInput` for a use that does not fit the kind of a name."""
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
                raise InvalidInput(f"'{name}' is a node: only size({name}) can be compared")
        for name in sorted(self.ids):
            if kinds.get(name) is Kind.NUMBER:
                raise InvalidInput(f"'{name}' is a number already, 'number' and 'hash' take ids")
        for name in sorted(self.sized):
            if kinds.get(name) is Kind.NUMBER:
                raise InvalidInput(f"'{name}' is a number: it has no size")


_NO_TRUTH = {
    Kind.TEXT: "'{name}' is text, which is neither true nor false: compare it, {name} == 'x'",
    Kind.UNKNOWN: (
        "nothing says that '{name}' is a number, true or false: declare it in the flow, "
        "context: {{{name}: number}}"
    ),
}
_NO_NUMBER: dict[Kind, str | None] = {
    Kind.NUMBER: None,
    Kind.TEXT: (
        "'{name}' is text, not a number: number({name}) makes a number of an id, and "
        'hash({name}, "salt", 100) one from 0 to 99'
    ),
    Kind.ITEMS: "'{name}' is a node, not a number: size({name}) is how many it gives",
    Kind.UNKNOWN: (
        "nothing says that '{name}' is a number: declare it in the flow, "
        "context: {{{name}: number}}"
    ),
}
