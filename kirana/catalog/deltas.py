"""What differs between a revision and its base: who has the base need not read the rest."""

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
    """Objects that were put and that are gone; all records of groups and entities with new ones.

    `base` is the number of the revision that they lead on from, `stamp` that of its file.
    """

    base: int
    stamp: Stamp
    put: Mapping[Key, Item]
    gone: frozenset[Key]
    history: History


class _Record(msgspec.Struct):
    base: int
    stamp: Stamp
    put: list[msgspec.Raw]
    gone: list[Key]
    versions: dict[str, msgspec.Raw]
    storage: dict[str, msgspec.Raw]


def delta_of(before: Catalog, stamp: Stamp, after: Catalog, changed: Collection[Key]) -> bytes:
    """Return what leads from one revision, whose file has this stamp, to the next."""
    put = [after.item(key) for key in sorted(changed)]
    return orjson.dumps(
        {
            "base": before.revision.number,
            "stamp": stamp,
            "put": [orjson.Fragment(item.raw) for item in put if item is not None],
            "gone": [key for key in sorted(changed) if after.item(key) is None],
            "versions": _new(before.versions, after.versions),
            "storage": _new(before.storage, after.storage),
        }
    )


def _new(
    before: Mapping[str, Records[Any]], after: Mapping[str, Records[Any]]
) -> dict[str, orjson.Fragment]:
    names = [name for name, records in after.items() if before.get(name) != records]
    return {name: orjson.Fragment(after[name].raw) for name in names}


def read_delta(content: bytes) -> Delta:
    """Raises `ValueError`, `KeyError` or `TypeError` for what is none."""
    try:
        record = msgspec.json.decode(content, type=_Record)
    except msgspec.MsgspecError as error:
        raise ValueError(str(error)) from None
    versions = {name: written_versions(name, bytes(raw)) for name, raw in record.versions.items()}
    storage = {name: written_storage(name, bytes(raw)) for name, raw in record.storage.items()}
    put, gone = parse_items(record.put), frozenset(record.gone)
    return Delta(record.base, record.stamp, put, gone, History(versions, storage))
