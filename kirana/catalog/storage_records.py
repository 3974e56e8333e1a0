"""Append-only records of how the rows of an entity are stored.

A record holds the keys of an entity in order, and the codec and checksum of each of its groups.
Records are kept when the entity is deleted. They are used to refuse changes of a catalog that would
give stored rows another meaning.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import orjson

from kirana.catalog.records import Records
from kirana.errors import Problem
from kirana.schema import Entity, FeatureGroup, Key

_WIDER = {("int32", "int64"), ("uint32", "uint64")}
"""The allowed changes of a key's dtype, as (old, new). They do not change any key text."""


@dataclass(frozen=True, slots=True)
class GroupStorage:
    """How the rows of one group are stored."""

    codec: str
    checksum: str


@dataclass(frozen=True)
class StorageRecord:
    """How the rows of one entity are stored.

    `groups` are by short name (`stats` for `product.stats`), and include deleted groups.
    """

    entity: str
    number: int
    keys: tuple[Key, ...]
    groups: Mapping[str, GroupStorage]

    @cached_property
    def fingerprint(self) -> int:
        """A 32-bit hash of the record, written with it. It shows whether the record was edited."""
        text = orjson.dumps([self.entity, record_of(self)], option=orjson.OPT_SORT_KEYS)
        return int.from_bytes(hashlib.blake2b(text, digest_size=4).digest(), "little")


Storage = Mapping[str, Records[StorageRecord]]
"""The storage records by entity, in order."""


def record_of(record: StorageRecord) -> dict[str, Any]:
    """Return a storage record as plain values, for YAML or JSON."""
    return {
        "keys": [{"name": key.name, "dtype": key.dtype} for key in record.keys],
        "groups": {
            name: {"codec": group.codec, "checksum": group.checksum}
            for name, group in sorted(record.groups.items())
        },
    }


def parse_record(entity: str, number: int, record: Mapping[str, Any]) -> StorageRecord:
    """Return a storage record, given the plain values that `record_of` makes of it.

    Raise `KeyError`, `TypeError` or `AttributeError` for other values.
    """
    keys = tuple(Key(fields["name"], fields["dtype"]) for fields in record["keys"])
    groups = {
        name: GroupStorage(fields["codec"], fields["checksum"])
        for name, fields in record["groups"].items()
    }
    return StorageRecord(entity, number, keys, groups)


def storage_records(records: Sequence[StorageRecord]) -> Records[StorageRecord]:
    """Return storage records of an entity as `Records`."""
    return Records.of(records, record_of)


def written_storage(entity: str, raw: bytes) -> Records[StorageRecord]:
    """Return an entity's storage records in the JSON list `raw`, which is parsed on first use."""
    return Records.written(
        raw, lambda number, record: parse_record(entity, number, record), record_of
    )


def storage_of(objects: Iterable[Mapping[str, Any]]) -> dict[str, Records[StorageRecord]]:
    """Return the first storage record of each entity, made from published objects.

    Early versions of Kirana wrote no storage records. `objects` are the JSON values of the objects
    of their revisions. The objects need not be valid any more, but their rows are still stored.
    """
    by_kind: dict[str, list[Mapping[str, Any]]] = {"entity": [], "feature_group": []}
    for fields in objects:
        if fields["kind"] in by_kind:
            by_kind[fields["kind"]].append(fields)
    storage = {}
    for entity in by_kind["entity"]:
        groups = {
            group["name"].partition(".")[2]: {
                "codec": group.get("codec", "packed"),
                "checksum": group.get("checksum", "none"),
            }
            for group in by_kind["feature_group"]
            if group["name"].partition(".")[0] == entity["name"]
        }
        keys = [{"dtype": "string", **key} for key in entity["keys"]]
        record = {"keys": keys, "groups": dict(sorted(groups.items()))}
        storage[entity["name"]] = storage_records([parse_record(entity["name"], 1, record)])
    return storage


def extended(
    history: Records[StorageRecord] | None, entity: Entity, groups: Sequence[FeatureGroup]
) -> Records[StorageRecord]:
    """Return the storage records of an entity, with a new one if its keys or `groups` changed.

    A new record describes the other groups of the entity as the last record does.
    """
    known_groups = history[-1].groups if history else {}
    new_groups = {
        group.short_name: GroupStorage(group.codec, "crc32" if group.checksum else "none")
        for group in groups
    }
    all_groups = dict(sorted({**known_groups, **new_groups}.items()))
    old_records = history or ()
    record = StorageRecord(entity.name, len(old_records) + 1, entity.keys, all_groups)
    if history and (record.keys, record.groups) == (history[-1].keys, history[-1].groups):
        return history
    return storage_records([*old_records, record])


def check_keys(history: Sequence[StorageRecord], entity: Entity) -> Iterator[Problem]:
    """Yield a problem for each change of the keys that would give stored rows another meaning."""
    if not history:
        return
    last_record = history[-1]
    if len(last_record.keys) != len(entity.keys):
        names = [key.name for key in last_record.keys]
        message = (
            f"'{entity.name}' was published with {len(names)} keys: {', '.join(names)}. Rows are "
            "stored under them: to use a different number of keys, define a new entity"
        )
        yield Problem(message, path="keys")
        return
    for position, (key, old_key) in enumerate(zip(entity.keys, last_record.keys, strict=True)):
        other_position = _other_position(history, key.name, position)
        if other_position is not None:
            message = (
                f"'{key.name}' was key {other_position + 1} of '{entity.name}', not key "
                f"{position + 1}: stored rows would be read for other ids. Keep the order, or "
                "define a new entity"
            )
            yield Problem(message, path=f"keys[{position}].name")
        if key.dtype != old_key.dtype and (old_key.dtype, key.dtype) not in _WIDER:
            message = (
                f"key '{old_key.name}' was {old_key.dtype}, and rows are stored under its key "
                f"texts: to use {key.dtype}, define a new entity"
            )
            yield Problem(message, path=f"keys[{position}].dtype")


def _other_position(history: Sequence[StorageRecord], name: str, position: int) -> int | None:
    """Return a position other than `position` at which a record has the key `name`, or None."""
    for record in history:
        for old_position, key in enumerate(record.keys):
            if key.name == name and old_position != position:
                return old_position
    return None


def check_codec(history: Sequence[StorageRecord], group: str, codec: str) -> Iterator[Problem]:
    """Yield a problem if rows of `group` (`entity.group`) are stored with another codec."""
    _, _, short_name = group.partition(".")
    stored = history[-1].groups.get(short_name) if history else None
    if stored is not None and stored.codec != codec:
        message = (
            f"rows of '{group}' are stored with the codec '{stored.codec}', and '{codec}' can't "
            "read them: give the group another name, and load its rows again"
        )
        yield Problem(message, path="codec")
