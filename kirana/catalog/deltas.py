"""Deltas: the differences between a revision and the revision before it.

A process that has the earlier revision in memory reads only the delta.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import orjson

from kirana.catalog.history import History
from kirana.catalog.items import Item, Key
from kirana.catalog.records import Records
from kirana.catalog.revision_file import parse_items
from kirana.catalog.schema_records import written_versions
from kirana.catalog.snapshot import Catalog
from kirana.catalog.stamps import Stamp
from kirana.catalog.storage_records import written_storage


@dataclass(frozen=True, slots=True)
class Delta:
    """The objects that a revision put and deleted, and the records that it changed.

    `base` is the number of the earlier revision, and `stamp` is the stamp of its file.
    `history` has all records of those groups and entities whose records have changed.
    """

    base: int
    stamp: Stamp
    put: Mapping[Key, Item]
    deleted: frozenset[Key]
    history: History


class _Record(msgspec.Struct):
    base: int
    stamp: Stamp
    put: list[msgspec.Raw]
    gone: list[Key]
    versions: dict[str, msgspec.Raw]
    storage: dict[str, msgspec.Raw]


def delta_of(before: Catalog, stamp: Stamp, after: Catalog, changed: Collection[Key]) -> bytes:
    """Return the delta between two revisions as JSON.

    `stamp` is the stamp of the file of `before`, and `changed` are the keys of the objects that
    differ.
    """
    put = [after.item(key) for key in sorted(changed)]
    return orjson.dumps(
        {
            "base": before.revision.number,
            "stamp": stamp,
            "put": [orjson.Fragment(item.raw) for item in put if item is not None],
            "gone": [key for key in sorted(changed) if after.item(key) is None],
            "versions": _changed_records(before.versions, after.versions),
            "storage": _changed_records(before.storage, after.storage),
        }
    )


def _changed_records(
    before: Mapping[str, Records[Any]], after: Mapping[str, Records[Any]]
) -> dict[str, orjson.Fragment]:
    """Return the JSON of the records that are new or have changed, by group or entity."""
    names = [name for name, records in after.items() if before.get(name) != records]
    return {name: orjson.Fragment(after[name].raw) for name in names}


def read_delta(content: bytes) -> Delta:
    """Parse a delta, except its records, which are parsed on first use.

    Raise `ValueError`, `KeyError` or `TypeError` if the delta is not valid.
    """
    try:
        record = msgspec.json.decode(content, type=_Record)
    except msgspec.MsgspecError as error:
        raise ValueError(str(error)) from None
    versions = {name: written_versions(name, bytes(raw)) for name, raw in record.versions.items()}
    storage = {name: written_storage(name, bytes(raw)) for name, raw in record.storage.items()}
    put, deleted = parse_items(record.put), frozenset(record.gone)
    return Delta(record.base, record.stamp, put, deleted, History(versions, storage))
