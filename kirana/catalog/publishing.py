"""What all places of a catalog have in common: how a revision is written down, and told of."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import orjson

from kirana.catalog.changes import CatalogPublisher, RevisionRecord, plain
from kirana.catalog.documents import Document
from kirana.catalog.objects import KINDS, CatalogObject
from kirana.catalog.revisions import CatalogSource
from kirana.catalog.schema_records import features_record
from kirana.catalog.snapshot import Catalog
from kirana.catalog.validation import Placed, Versions
from kirana.errors import CatalogError, Problem
from kirana.schema import SchemaVersion, spelled


@dataclass(frozen=True, slots=True)
class Published:
    """What `publish` did: `changed` is False where the live revision is the same already."""

    revision: int
    changed: bool
    new_versions: tuple[SchemaVersion, ...]


class CatalogPlace(CatalogSource, CatalogPublisher, Protocol):
    """Where a catalog is published to and read from; its source is a folder of YAML files."""

    def check(self) -> tuple[Catalog, tuple[SchemaVersion, ...]]:
        """Validate the source; return it with the schema versions that publishing would add.

        Raises `CatalogError` with every problem that was found.
        """

    def publish(self, *, expected_revision: int | None = None) -> Published:
        """Make the source the next revision, as one step.

        Raises `CatalogError` if it is not valid, `Conflict` if another revision than
        `expected_revision` is live.
        """

    def close(self) -> None:
        """Let go of the place. No-op if closed."""


def added_versions(catalog: Catalog, versions: Versions) -> tuple[SchemaVersion, ...]:
    """Return the schema versions that a catalog has beyond the histories that were published."""
    return tuple(
        group.current
        for group in catalog.groups.values()
        if len(group.versions) > len(versions.get(group.name, ()))
    )


def read_object(record: Mapping[str, Any], where: str) -> Placed:
    """Return a published object; what is none raises `ValueError`, `KeyError` or `TypeError`."""
    model = KINDS[record["kind"]]
    return Placed(model.model_validate(record), Document(where, record, {}))


def serialize(catalog: Catalog) -> bytes:
    objects = sorted(catalog.objects, key=lambda each: (list(KINDS).index(each.kind), each.name))
    content = {
        "objects": [spelled(each.model_dump(by_alias=True)) for each in objects],
        "versions": {
            name: [features_record(version) for version in catalog.groups[name].versions]
            for name in sorted(catalog.groups)
        },
    }
    try:
        return orjson.dumps(content, option=orjson.OPT_INDENT_2)
    except TypeError as error:
        # parameters are free in form: a date of YAML, a whole number of 100 digits
        raise CatalogError([Problem(f"a value can't be published: {error}")]) from None


def record_of(
    revision: int, before: Sequence[CatalogObject], after: Sequence[CatalogObject]
) -> RevisionRecord:
    old = {f"{each.kind} {each.name}": plain(each) for each in before}
    new = {f"{each.kind} {each.name}": plain(each) for each in after}
    put = sorted(name for name, each in new.items() if old.get(name) != each)
    return RevisionRecord(revision, int(time.time() * 1000), put, sorted(old.keys() - new.keys()))
