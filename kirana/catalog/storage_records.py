"""Append-only records of how the rows of an entity are stored: what gives bytes their meaning.

A record holds the keys of an entity in their order, and the codec and checksum of each of its
groups. It is written beside the schema versions, stays when the entity is deleted, and decides
what a catalog may still change.
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
"""Dtypes of a key that may follow one another: the same number has the same key text."""


@dataclass(frozen=True, slots=True)
class GroupStorage:
    """How rows of one group are stored."""

    codec: str
    checksum: str


@dataclass(frozen=True)
class StorageRecord:
    """`groups` are by their names without the entity's; they stay when a group is deleted."""

    entity: str
    number: int
    keys: tuple[Key, ...]
    groups: Mapping[str, GroupStorage]

    @cached_property
    def fingerprint(self) -> int:
        """32 bits over the record, by which a file that was edited is noticed."""
        text = orjson.dumps([self.entity, record_of(self)], option=orjson.OPT_SORT_KEYS)
        return int.from_bytes(hashlib.blake2b(text, digest_size=4).digest(), "little")


Storage = Mapping[str, Records[StorageRecord]]
"""The records of each entity, in order."""


def record_of(record: StorageRecord) -> dict[str, Any]:
    """Return a record as it is written down, in YAML or JSON."""
    return {
        "keys": [{"name": key.name, "dtype": key.dtype} for key in record.keys],
        "groups": {
            name: {"codec": each.codec, "checksum": each.checksum}
            for name, each in sorted(record.groups.items())
        },
    }


def parse_record(entity: str, number: int, record: Mapping[str, Any]) -> StorageRecord:
    """Read what `record_of` made. Raises `KeyError` or `TypeError` for anything else."""
    keys = tuple(Key(each["name"], each["dtype"]) for each in record["keys"])
    groups = {
        name: GroupStorage(each["codec"], each["checksum"])
        for name, each in record["groups"].items()
    }
    return StorageRecord(entity, number, keys, groups)


def storage_records(records: Sequence[StorageRecord]) -> Records[StorageRecord]:
    """Return what is known of an entity, in order, as records."""
    return Records.of(records, record_of)


def written_storage(entity: str, raw: bytes) -> Records[StorageRecord]:
    """Return the records of an entity as they were written down."""
    return Records.written(raw, lambda at, each: parse_record(entity, at, each), record_of)


def storage_of(objects: Iterable[Mapping[str, Any]]) -> dict[str, Records[StorageRecord]]:
    """Return first records for published objects that have none, as they were written down.

    They need not be valid any more: rows are stored by them all the same.
    """
    by_kind: dict[str, list[Mapping[str, Any]]] = {"entity": [], "feature_group": []}
    for each in objects:
        if each["kind"] in by_kind:
            by_kind[each["kind"]].append(each)
    found = {}
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
        found[entity["name"]] = storage_records([parse_record(entity["name"], 1, record)])
    return found


def extended(
    history: Records[StorageRecord] | None, entity: Entity, groups: Sequence[FeatureGroup]
) -> Records[StorageRecord]:
    """Return the records of an entity, with a next one if something is new of some groups."""
    known = history[-1].groups if history else {}
    stored = {
        group.short_name: GroupStorage(group.codec, "crc32" if group.checksum else "none")
        for group in groups
    }
    all_groups = dict(sorted({**known, **stored}.items()))
    before = history or ()
    record = StorageRecord(entity.name, len(before) + 1, entity.keys, all_groups)
    if history and (record.keys, record.groups) == (history[-1].keys, history[-1].groups):
        return history
    return storage_records([*before, record])


def check_keys(history: Sequence[StorageRecord], entity: Entity) -> Iterator[Problem]:
    """Yield a problem for each key that would give stored key texts another meaning."""
    if not history:
        return
    last = history[-1]
    if len(last.keys) != len(entity.keys):
        names = [key.name for key in last.keys]
        message = (
            f"'{entity.name}' had {len(names)} keys when it was published: {names}. Rows are "
            "stored under them, so another number of keys needs another entity"
        )
        yield Problem(message, path="keys")
        return
    for at, (key, before) in enumerate(zip(entity.keys, last.keys, strict=True)):
        moved = _moved_to(history, key.name, at)
        if moved is not None:
            message = (
                f"'{key.name}' was key {moved + 1} of '{entity.name}', not key {at + 1}: stored "
                "rows would be read for other ids. Keep the order, or make another entity"
            )
            yield Problem(message, path=f"keys[{at}].name")
        if key.dtype != before.dtype and (before.dtype, key.dtype) not in _WIDER:
            message = (
                f"key '{before.name}' was {before.dtype}: stored rows have its key texts, so "
                f"{key.dtype} needs another entity"
            )
            yield Problem(message, path=f"keys[{at}].dtype")


def _moved_to(history: Sequence[StorageRecord], name: str, at: int) -> int | None:
    for record in history:
        for position, key in enumerate(record.keys):
            if key.name == name and position != at:
                return position
    return None


def check_codec(history: Sequence[StorageRecord], group: str, codec: str) -> Iterator[Problem]:
    """Yield a problem if rows of `group` (its full name) are stored by another codec."""
    _, _, short = group.partition(".")
    before = history[-1].groups.get(short) if history else None
    if before is not None and before.codec != codec:
        message = (
            f"rows of '{group}' are stored by the codec '{before.codec}', which '{codec}' can't "
            "read: give the group another name, and load it again"
        )
        yield Problem(message, path="codec")
