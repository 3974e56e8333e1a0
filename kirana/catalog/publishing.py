"""What all backends of a catalog share: how a revision is written down and described."""

from __future__ import annotations

import time
import uuid
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from kirana.catalog.changes import CatalogPublisher, RevisionRecord
from kirana.catalog.checks import Checks
from kirana.catalog.documents import Document
from kirana.catalog.history import Additions, History, additions
from kirana.catalog.items import Item, Key
from kirana.catalog.revisions import CatalogSource
from kirana.catalog.snapshot import Catalog
from kirana.catalog.sources import Located
from kirana.catalog.storage_records import Storage
from kirana.catalog.validation import Where, validate
from kirana.errors import Conflict, Problem
from kirana.revision import Revision

KEPT_REVISIONS = 100
"""How many revisions a catalog keeps by default, with the bytes of their models."""


@dataclass(frozen=True, slots=True)
class Checked:
    """A source that may be published: what that would append, and what its author should see.

    `new_bytes` are the models whose bytes are others than those of the live revision, `changed`
    the objects that differ from it.
    """

    catalog: Catalog
    added: Additions
    warnings: tuple[Problem, ...] = ()
    new_bytes: tuple[str, ...] = ()
    changed: frozenset[Key] = frozenset()


@dataclass(frozen=True, slots=True)
class Published:
    """What publishing did: `changed` is False where the live revision is the same already."""

    revision: Revision
    changed: bool
    checked: Checked


class CatalogBackend(CatalogSource, CatalogPublisher, Protocol):
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
        """Let go of the backend. No-op if closed."""


def lost_catalog(where: str) -> Conflict:
    """Return the error for a change of a catalog that has no revision: nothing is to be changed.

    Published by itself, the change would be all that is left of the catalog.
    """
    return Conflict(f"the catalog has no revision, or it was lost: run 'kirana apply' on {where}")


def new_identity() -> str:
    """Return the identity of a catalog that begins now."""
    return uuid.uuid4().hex[:16]


def check_items(
    items: Mapping[Key, Item],
    where: Where,
    written: History,
    stored: Storage,
    checks: Checks,
    before: Catalog | None,
    live: Catalog | None,
) -> Checked:
    """Validate objects, and describe what publishing them would do.

    `written` are the records that are there, `stored` how the live revision stores rows. `before`
    is a valid catalog, of which is shared what stays; `live` the one to compare with.
    Raises `CatalogError`.
    """
    known = written.with_live(stored)
    validated = validate(items, where, known, checks, before)
    catalog = validated.catalog
    added = additions(catalog.history, written, known)
    changed = validated.changed if live is None else differing(live, catalog)
    return Checked(catalog, added, validated.warnings, _new_bytes(catalog, live), changed)


def names_of_records(keys: Iterable[Key]) -> set[str]:
    """Return the groups and entities whose records decide whether some objects may change."""
    names = {name for kind, name in keys if kind in ("entity", "feature_group")}
    return names | {name.partition(".")[0] for name in names}


def _new_bytes(catalog: Catalog, live: Catalog | None) -> tuple[str, ...]:
    """Return the models of which the live revision has other bytes."""
    # one that was published, or is checked, without a look into its file has no digest
    before = {name: each.sha256 for name, each in live.models.items()} if live else {}
    return tuple(
        name
        for name, model in catalog.models.items()
        if model.sha256 and before.get(name) and before[name] != model.sha256
    )


def differing(one: Catalog, other: Catalog) -> frozenset[Key]:
    """Return the objects that one of two catalogs has, and the other has not, or not so."""
    mine = {item.key: item for item in one.all_items()}
    theirs = {item.key: item for item in other.all_items()}
    return frozenset(key for key in mine.keys() | theirs.keys() if mine.get(key) != theirs.get(key))


def at_home(items: Iterable[Item], file: str) -> Where:
    """Return where published objects are: in no file that people edit."""
    known = {item.key: item for item in items}
    return lambda key: Document(file, known[key].parsed if key in known else None)


def in_request(put: Mapping[Key, Located]) -> Where:
    """Return where an object is that a request puts, or does not put and makes invalid."""
    return lambda key: put[key].document if key in put else Document(f"{key[0]} '{key[1]}'", None)


def record_of(revision: int, changed: Collection[Key], after: Catalog) -> RevisionRecord:
    """Describe what a revision changed."""
    put = sorted(f"{kind} {name}" for kind, name in changed if after.item((kind, name)))
    gone = sorted(f"{kind} {name}" for kind, name in changed if not after.item((kind, name)))
    return RevisionRecord(revision, int(time.time() * 1000), put, gone)
