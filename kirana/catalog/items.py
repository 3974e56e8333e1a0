"""Objects of a catalog by their published bytes: compared as these, parsed when asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from kirana.catalog.objects import KINDS, CatalogObject
from kirana.errors import CatalogError, Problem
from kirana.schema import spelled

Key = tuple[str, str]
"""Kind and name of an object."""


class Item:
    """One object. `raw` is its record as JSON with sorted keys: the same object has the same."""

    __slots__ = ("_parsed", "key", "raw")

    def __init__(self, key: Key, raw: bytes, parsed: CatalogObject | None = None) -> None:
        self.key = key
        self.raw = raw
        self._parsed = parsed

    @classmethod
    def of(cls, each: CatalogObject) -> Item:
        """Raises `CatalogError` for an object that can't be published."""
        return cls(
            (each.kind, each.name), raw_record(spelled(each.model_dump(by_alias=True))), each
        )

    @classmethod
    def parse(cls, record: Mapping[str, Any]) -> Item:
        """Parse a published record. Raises `ValueError`, `KeyError` or `TypeError` for others."""
        return cls.of(KINDS[record["kind"]].model_validate(record))

    @property
    def parsed(self) -> CatalogObject:
        """The object as people wrote it."""
        if self._parsed is None:
            self._parsed = KINDS[self.key[0]].model_validate(orjson.loads(self.raw))
        return self._parsed

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Item) and self.key == other.key and self.raw == other.raw

    def __hash__(self) -> int:
        return hash((self.key, self.raw))


def raw_record(record: Mapping[str, Any]) -> bytes:
    """Raises `CatalogError` for a record that JSON can't hold."""
    try:
        return orjson.dumps(record, option=orjson.OPT_SORT_KEYS)
    except TypeError as error:
        # parameters are free in form: a date of YAML, a whole number of 100 digits
        raise CatalogError([Problem(f"a value can't be published: {error}")]) from None


def plain(each: CatalogObject) -> dict[str, Any]:
    """Return an object as people would write it: without defaults, JSON's values alone."""
    record = {"kind": each.kind, **each.model_dump(by_alias=True, exclude_defaults=True)}
    found: dict[str, Any] = spelled(record)
    return found
