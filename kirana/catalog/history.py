"""What was published before, which a catalog has to live with: it decides what may change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from kirana.catalog.snapshot import Catalog
from kirana.catalog.storage_records import Storage, StorageRecord
from kirana.schema import SchemaVersion

Versions = Mapping[str, Sequence[SchemaVersion]]
"""The schema versions of each group, in order."""


@dataclass(frozen=True, slots=True)
class History:
    """The append-only records of groups and entities, also of those that were deleted."""

    versions: Versions = field(default_factory=dict)
    storage: Storage = field(default_factory=dict)

    def with_live(self, live: Catalog | None) -> History:
        """Take the live revision for the first record of an entity that has none.

        A catalog that was published before there were records has none for what it stores.
        """
        if live is None:
            return self
        return History(self.versions, {**live.storage, **self.storage})


@dataclass(frozen=True, slots=True)
class Additions:
    """The records that publishing a catalog appends."""

    versions: tuple[SchemaVersion, ...]
    storage: tuple[StorageRecord, ...]

    def __bool__(self) -> bool:
        return bool(self.versions or self.storage)


def additions(catalog: Catalog, written: History) -> Additions:
    """Return the records of a catalog beyond those that were written before."""
    versions = (
        group.current
        for group in catalog.groups.values()
        if len(group.versions) > len(written.versions.get(group.name, ()))
    )
    storage = (
        record
        for entity, records in catalog.storage.items()
        for record in records[len(written.storage.get(entity, ())) :]
    )
    return Additions(tuple(versions), tuple(storage))
