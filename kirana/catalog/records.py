"""The append-only records of one group or entity; parsed, and spelled, when that is asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, Generic, TypeVar, overload

import orjson

from kirana.catalog.stamps import content_digest

R = TypeVar("R")

Parse = Callable[[int, Any], R]
"""From the number of a record, from 1, and what was written down of it."""


class Records(Sequence[R], Generic[R]):
    """Use `of` or `written`. Two are equal if they are spelled alike."""

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
        """Return records that are here as objects."""
        return cls(None, tuple(parsed), _never, spell)

    @classmethod
    def written(cls, raw: bytes, parse: Parse[R], spell: Callable[[R], Any]) -> Records[R]:
        """Return records as they were written down: a list in JSON."""
        return cls(raw, None, parse, spell)

    @property
    def raw(self) -> bytes:
        """The list of all records, in JSON."""
        if self._raw is None:
            assert self._parsed is not None
            self._raw = orjson.dumps(list(map(self._spell, self._parsed)))
        return self._raw

    @cached_property
    def digest(self) -> str:
        """What tells them from others."""
        return content_digest(self.raw)

    def parsed(self) -> Sequence[R]:
        """Parse all. Raises `ValueError`, `KeyError` or `TypeError` for what are no records."""
        if self._parsed is None:
            assert self._raw is not None
            found = orjson.loads(self._raw)
            self._parsed = tuple(self._parse(at, each) for at, each in enumerate(found, start=1))
        return self._parsed

    def __len__(self) -> int:
        return len(self.parsed())

    @overload
    def __getitem__(self, at: int) -> R: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[R]: ...
    def __getitem__(self, at: int | slice) -> R | Sequence[R]:
        return self.parsed()[at]

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Records) and self.raw == other.raw)

    __hash__ = None  # type: ignore[assignment]


def _never(number: int, record: Any) -> Any:
    raise AssertionError("these are parsed already")
