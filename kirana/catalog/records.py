"""The append-only records of one group (its schema versions) or entity (its storage records).

They are parsed and serialized only when that is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, Generic, TypeVar, overload

import orjson

from kirana.catalog.stamps import content_digest

R = TypeVar("R")

Parse = Callable[[int, Any], R]
"""A function that returns a record, given its number (1 for the first) and its JSON value."""


def record_title(name: str, number: int) -> str:
    """Return the title of a record for messages. Only names of groups have a dot."""
    kind = "schema version" if "." in name else "storage record"
    return f"{kind} {number} of '{name}'"


class Records(Sequence[R], Generic[R]):
    """The records of one group or entity, in order. Create them with `of` or `written`.

    `parse` makes a record from its JSON value, and `spell` makes the JSON value of a record. Two
    `Records` are equal if their JSON is equal.
    """

    def __init__(
        self,
        raw: bytes | None,
        parsed: Sequence[R] | None,
        parse: Parse[R],
        spell: Callable[[R], Any],
    ) -> None:
        self._raw = raw
        self._parsed = parsed
        self._parse = parse
        self._spell = spell

    @classmethod
    def of(cls, parsed: Sequence[R], spell: Callable[[R], Any]) -> Records[R]:
        """Return records that are already parsed."""
        return cls(None, tuple(parsed), _already_parsed, spell)

    @classmethod
    def written(cls, raw: bytes, parse: Parse[R], spell: Callable[[R], Any]) -> Records[R]:
        """Return the records in the JSON list `raw`, which is parsed on first use."""
        return cls(raw, None, parse, spell)

    @property
    def raw(self) -> bytes:
        """All records as a JSON list."""
        if self._raw is None:
            assert self._parsed is not None
            self._raw = orjson.dumps(list(map(self._spell, self._parsed)))
        return self._raw

    @cached_property
    def digest(self) -> str:
        """A digest of `raw`, equal for equal records."""
        return content_digest(self.raw)

    def parsed(self) -> Sequence[R]:
        """Return the parsed records.

        Raise `ValueError`, `KeyError`, `TypeError` or `AttributeError` if one is not valid.
        """
        if self._parsed is None:
            assert self._raw is not None
            values = orjson.loads(self._raw)
            self._parsed = tuple(
                self._parse(number, value) for number, value in enumerate(values, start=1)
            )
        return self._parsed

    def __len__(self) -> int:
        return len(self.parsed())

    @overload
    def __getitem__(self, index: int) -> R: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[R]: ...
    def __getitem__(self, index: int | slice) -> R | Sequence[R]:
        return self.parsed()[index]

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Records) and self.raw == other.raw)

    __hash__ = None  # type: ignore[assignment]


def _already_parsed(number: int, record: Any) -> Any:
    raise AssertionError("the records are already parsed")
