"""The records that were published before: they decide what a catalog may still change."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from kirana.catalog.records import Records
from kirana.catalog.storage_records import Storage, StorageRecord
from kirana.schema import SchemaVersion

Versions = Mapping[str, Records[SchemaVersion]]
"""The schema versions of each group, in order."""


@dataclass(frozen=True, slots=True)
class History:
    """The append-only records of groups and entities, also of those that were deleted."""

    versions: Versions = field(default_factory=dict)
    storage: Storage = field(default_factory=dict)

    def parse(self) -> None:
        """Raise `ValueError`, `KeyError` or `TypeError` if there is a record that is none."""
        for versions in self.versions.values():
            versions.parsed()
        for storage in self.storage.values():
            storage.parsed()

    def only(self, names: Collection[str]) -> History:
        """Return the records of some groups and entities."""
        return self._filtered(lambda name: name in names)

    def without(self, names: Collection[str]) -> History:
        """Return the records of all others."""
        return self._filtered(lambda name: name not in names)

    def _filtered(self, wanted: Callable[[str], bool]) -> History:
        return History(
            {name: each for name, each in self.versions.items() if wanted(name)},
            {name: each for name, each in self.storage.items() if wanted(name)},
        )

    def joined(self, other: History) -> History:
        """Return the records of both; of what both have, those of the other."""
        return History({**self.versions, **other.versions}, {**self.storage, **other.storage})

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


def additions(published: History, written: History, known: History) -> Additions:
    """Return the records beyond those that were `written`.

    They are those that a catalog is to be published with, and those that were only `known`: of an
    entity that it leaves out, too, so that it can't come back with another meaning.
    """
    versions = (
        records[-1]
        for group, records in published.versions.items()
        if (there := written.versions.get(group, ())) is not records and len(records) > len(there)
    )
    storage = (
        record
        for entity, records in {**known.storage, **published.storage}.items()
        if written.storage.get(entity) is not records
        for record in records[len(written.storage.get(entity, ())) :]
    )
    return Additions(tuple(versions), tuple(storage))
