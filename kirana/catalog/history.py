"""The published records of groups and entities, which limit how a catalog may change."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from kirana.catalog.records import Records
from kirana.catalog.storage_records import Storage, StorageRecord
from kirana.schema import SchemaVersion

Versions = Mapping[str, Records[SchemaVersion]]
"""The schema versions by group, in order."""


@dataclass(frozen=True, slots=True)
class History:
    """The append-only records of groups and entities, including deleted ones."""

    versions: Versions = field(default_factory=dict)
    storage: Storage = field(default_factory=dict)

    def parse(self) -> None:
        """Parse all records.

        Raise `ValueError`, `KeyError`, `TypeError` or `AttributeError` if one is not valid.
        """
        for versions in self.versions.values():
            versions.parsed()
        for storage in self.storage.values():
            storage.parsed()

    def only(self, names: Collection[str]) -> History:
        """Return the records of the groups and entities in `names`."""
        return self._filtered(lambda name: name in names)

    def without(self, names: Collection[str]) -> History:
        """Return the records of the groups and entities that are not in `names`."""
        return self._filtered(lambda name: name not in names)

    def _filtered(self, wanted: Callable[[str], bool]) -> History:
        return History(
            {name: records for name, records in self.versions.items() if wanted(name)},
            {name: records for name, records in self.storage.items() if wanted(name)},
        )

    def joined(self, other: History) -> History:
        """Return the records of both. For a name that both have, take the records of `other`."""
        return History({**self.versions, **other.versions}, {**self.storage, **other.storage})

    def with_live(self, storage: Storage) -> History:
        """Return these records, and those of `storage` for entities without storage records here.

        `storage` describes how the live revision stores rows. It is needed for catalogs that were
        published by early versions of Kirana, which wrote no storage records.
        """
        return History(self.versions, {**storage, **self.storage})


@dataclass(frozen=True, slots=True)
class Additions:
    """The records that a publish appends."""

    versions: tuple[SchemaVersion, ...]
    storage: tuple[StorageRecord, ...]

    def __bool__(self) -> bool:
        return bool(self.versions or self.storage)


def additions(after: History, written: History, known: History) -> Additions:
    """Return the records to append to those that are already `written`.

    These are the new records of the catalog to publish (`after`), and storage records that are only
    `known` from the live revision. The latter include records of deleted entities, whose rows must
    keep their meaning if the entities are created again.
    """
    versions = (
        records[-1]
        for group, records in after.versions.items()
        if (old := written.versions.get(group, ())) is not records and len(records) > len(old)
    )
    storage = (
        record
        for entity, records in {**known.storage, **after.storage}.items()
        if written.storage.get(entity) is not records
        for record in records[len(written.storage.get(entity, ())) :]
    )
    return Additions(tuple(versions), tuple(storage))
