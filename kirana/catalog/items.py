"""Items: objects of a catalog, compared by their published bytes and parsed when needed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from kirana.catalog.objects import KINDS, CatalogObject, ModelObject
from kirana.errors import CatalogError, Problem
from kirana.schema import spelled

Key = tuple[str, str]
"""The kind and the name of an object."""


class Item:
    """One object. `raw` is its JSON with sorted fields, so equal objects have equal bytes."""

    __slots__ = ("_parsed", "key", "raw")

    def __init__(self, key: Key, raw: bytes, parsed: CatalogObject | None = None) -> None:
        self.key = key
        self.raw = raw
        self._parsed = parsed

    @classmethod
    def of(cls, declared: CatalogObject) -> Item:
        """Return the item of an object. Raise `CatalogError` for a value that JSON can't hold."""
        return cls(
            (declared.kind, declared.name),
            raw_record(spelled(declared.model_dump(by_alias=True))),
            declared,
        )

    @classmethod
    def parse(cls, record: Mapping[str, Any]) -> Item:
        """Return the item of a published object, given its JSON value.

        Raise `ValueError`, `KeyError` or `TypeError` if the object is not valid.
        """
        return cls.of(KINDS[record["kind"]].model_validate(record))

    @property
    def parsed(self) -> CatalogObject:
        """The object, parsed from `raw` on first use."""
        if self._parsed is None:
            self._parsed = KINDS[self.key[0]].model_validate(orjson.loads(self.raw))
        return self._parsed

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Item) and self.key == other.key and self.raw == other.raw

    def __hash__(self) -> int:
        return hash((self.key, self.raw))


def raw_record(record: Mapping[str, Any]) -> bytes:
    """Return the fields of an object as JSON. Raise `CatalogError` for a value JSON can't hold."""
    try:
        return orjson.dumps(record, option=orjson.OPT_SORT_KEYS)
    except TypeError as error:
        # Parameters may be any YAML value, such as binary data or an integer of 100 digits.
        raise CatalogError([Problem(f"a value can't be published: {error}")]) from None


def plain(declared: CatalogObject) -> dict[str, Any]:
    """Return an object as people would write it: without defaults.

    NaN and infinities are texts, as in JSON.
    """
    record = {"kind": declared.kind, **declared.model_dump(by_alias=True, exclude_defaults=True)}
    fields: dict[str, Any] = spelled(record)
    return fields


def same_object(source: CatalogObject | None, published: CatalogObject | None) -> bool:
    """Return whether an object in the source files is equal to the published one.

    None stands for a missing object. A model in the source files may leave out its digest.
    """
    if source is None or published is None:
        return source is published
    published_fields = plain(published)
    if isinstance(source, ModelObject) and source.sha256 is None:
        published_fields.pop("sha256", None)
    return plain(source) == published_fields
