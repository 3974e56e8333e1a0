"""The parts that all places of a catalog share: how a revision is written down and described."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import orjson

from kirana.catalog.changes import CatalogPublisher, RevisionRecord, plain
from kirana.catalog.documents import Document
from kirana.catalog.history import Additions
from kirana.catalog.objects import KINDS, CatalogObject
from kirana.catalog.revisions import CatalogSource
from kirana.catalog.schema_records import features_record
from kirana.catalog.snapshot import Catalog
from kirana.catalog.storage_records import record_of as storage_record
from kirana.catalog.validation import Placed
from kirana.errors import CatalogError, Conflict, Problem
from kirana.revision import Revision
from kirana.schema import spelled

KEPT_REVISIONS = 100
"""How many revisions a catalog keeps by default, with the bytes of their models."""


@dataclass(frozen=True, slots=True)
class Checked:
    """A source that may be published: what that would append, and what its author should see.

    `new_bytes` are the models whose bytes are others than those of the live revision.
    """

    catalog: Catalog
    added: Additions
    warnings: tuple[Problem, ...] = ()
    new_bytes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Published:
    """What publishing did: `changed` is False where the live revision is the same already."""

    revision: Revision
    changed: bool
    checked: Checked


class CatalogPlace(CatalogSource, CatalogPublisher, Protocol):
    """Where a catalog is published to and read from; its source is a folder of YAML files."""

    def check(self) -> Checked:
        """Validate the source without publishing it.

        Raises `CatalogError` with every problem that was found.
        """

    def publish(self, *, expected_revision: int | None = None) -> Published:
        """Make the source the next revision, as one step.

        Raises `CatalogError` if it is not valid, `Conflict` if another revision than
        `expected_revision` is live.
        """

    def close(self) -> None:
        """Let go of the place. No-op if closed."""


def lost_catalog(where: str) -> Conflict:
    """Return the error for a change of a catalog that has no revision: nothing is to be changed.

    Published by itself, the change would be all that is left of the catalog.
    """
    return Conflict(f"the catalog has no revision, or it was lost: run 'kirana apply' on {where}")


def new_identity() -> str:
    """Return the identity of a catalog that begins now."""
    return uuid.uuid4().hex[:16]


def new_bytes(catalog: Catalog, live: Catalog | None) -> tuple[str, ...]:
    """Return the models of which the live revision has other bytes."""
    # one that was published, or is checked, without a look into its file has no digest
    before = {name: each.sha256 for name, each in live.models.items()} if live else {}
    return tuple(
        name
        for name, model in catalog.models.items()
        if model.sha256 and before.get(name) and before[name] != model.sha256
    )


def read_object(record: Mapping[str, Any], where: str) -> Placed:
    """Return a published object; what is none raises `ValueError`, `KeyError` or `TypeError`."""
    model = KINDS[record["kind"]]
    return Placed(model.model_validate(record), Document(where, record, {}))


def serialize(catalog: Catalog, identity: str) -> bytes:
    objects = sorted(catalog.objects, key=lambda each: (list(KINDS).index(each.kind), each.name))
    content = {
        "catalog": identity,
        "objects": [spelled(each.model_dump(by_alias=True)) for each in objects],
        "versions": {
            name: [features_record(version) for version in catalog.groups[name].versions]
            for name in sorted(catalog.groups)
        },
        "storage": {
            name: [storage_record(record) for record in catalog.storage[name]]
            for name in sorted(catalog.storage)
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
