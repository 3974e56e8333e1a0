"""The records that were published before: they decide what a catalog may still change."""

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

    def with_live(self, storage: Storage) -> History:
        """Take what the live revision stores for the first record of an entity that has none.

        A catalog that was published before there were records has none for what it stores.
        """
        return History(self.versions, {**storage, **self.storage})


@dataclass(frozen=True, slots=True)
class Additions:
    """The records that publishing a catalog appends."""

    versions: tuple[SchemaVersion, ...]
    storage: tuple[StorageRecord, ...]

    def __bool__(self) -> bool:
        return bool(self.versions or self.storage)


def additions(catalog: Catalog, written: History, known: History) -> Additions:
    """Return the records beyond those that were `written`.

    They are those of the catalog, and those that were only `known`: of an entity that it leaves
    out, too, so that it can't come back with another meaning.
    """
    versions = (
        group.current
        for group in catalog.groups.values()
        if len(group.versions) > len(written.versions.get(group.name, ()))
    )
    storage = (
        record
        for entity, records in {**known.storage, **catalog.storage}.items()
        for record in records[len(written.storage.get(entity, ())) :]
    )
    return Additions(tuple(versions), tuple(storage))
