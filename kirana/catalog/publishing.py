"""The interface of a catalog backend, and the functions that all backends share."""

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
from kirana.catalog.validation import DocumentOf, validate
from kirana.errors import Conflict, Problem
from kirana.revision import Revision

KEPT_REVISIONS = 100
"""The number of revisions that a catalog keeps by default, with the copies of their models."""


@dataclass(frozen=True, slots=True)
class Checked:
    """A valid catalog, and the effects of publishing it.

    `added` are the records that a publish would append. `warnings` are for the author of the
    catalog. `changed_models` are the names of the models of the live revision that get new bytes.
    `changed` are the keys of the objects that differ from the live revision. Without a live
    revision, these are all keys.
    """

    catalog: Catalog
    added: Additions
    warnings: tuple[Problem, ...] = ()
    changed_models: tuple[str, ...] = ()
    changed: frozenset[Key] = frozenset()


@dataclass(frozen=True, slots=True)
class Published:
    """The result of a publish. `revision` is live now.

    If nothing has changed, it is the revision that was live before, and `changed` is False.
    """

    revision: Revision
    changed: bool
    checked: Checked


class CatalogBackend(CatalogSource, CatalogPublisher, Protocol):
    """A place where a catalog is published and read. The source is a folder of YAML files."""

    def check(self) -> Checked:
        """Validate the source without publishing it.

        Raise `CatalogError` with the problems if the source is not valid.
        """

    def publish(self, *, expected_revision: int | None = None) -> Published:
        """Publish the source as the next revision, atomically.

        If the source equals the live revision, publish nothing. Raise `CatalogError` if the source
        is not valid. Raise `Conflict` if `expected_revision` is given and is not live, or if the
        live revision or a model file changes during the publish.
        """

    def close(self) -> None:
        """Close the connections of the backend. No-op if it is closed."""


def lost_catalog(where: str) -> Conflict:
    """Return the error for a change of a catalog that has no revision.

    The catalog may have been lost. If the change were published, it would be the whole catalog.
    `where` is the folder or the URL of the catalog.
    """
    return Conflict(
        f"the catalog in {where} has no revision, or has lost its revisions: run 'kirana apply' to "
        "publish all of it"
    )


def new_identity() -> str:
    """Return a random identity for a new catalog."""
    return uuid.uuid4().hex[:16]


def check_items(
    items: Mapping[Key, Item],
    document_of: DocumentOf,
    written: History,
    stored: Storage,
    checks: Checks,
    before: Catalog | None,
    live: Catalog | None,
) -> Checked:
    """Validate objects, and return the effects of publishing them.

    `written` are the records that exist, and `stored` is how the live revision stores rows. The
    result shares unchanged objects with `before`, a valid catalog, and is compared with `live`.
    Either may be None. Raise `CatalogError` with the problems if the objects are not valid.
    """
    known_records = written.with_live(stored)
    validated = validate(items, document_of, known_records, checks, before)
    catalog = validated.catalog
    added = additions(catalog.history, written, known_records)
    changed = validated.changed if live is None else changed_keys(live, catalog)
    return Checked(catalog, added, validated.warnings, _changed_models(catalog, live), changed)


def names_of_records(keys: Iterable[Key]) -> set[str]:
    """Return the names of the groups and entities whose records limit changes of these objects.

    These are the groups and entities among the objects, and the entities of the groups.
    """
    names = {name for kind, name in keys if kind in ("entity", "feature_group")}
    return names | {name.partition(".")[0] for name in names}


def _changed_models(catalog: Catalog, live: Catalog | None) -> tuple[str, ...]:
    """Return the names of the models whose bytes differ from the live revision.

    Models that are not in the live revision are left out. So are models without a digest in one of
    the two, because they were published or checked without access to the model files.
    """
    live_digests = {name: model.sha256 for name, model in live.models.items()} if live else {}
    return tuple(
        name
        for name, new_model in catalog.models.items()
        if new_model.sha256 and live_digests.get(name) and live_digests[name] != new_model.sha256
    )


def changed_keys(before: Catalog, after: Catalog) -> frozenset[Key]:
    """Return the keys of the objects that differ between two catalogs, or are in only one."""
    old_items = {item.key: item for item in before.all_items()}
    new_items = {item.key: item for item in after.all_items()}
    return frozenset(
        key
        for key in old_items.keys() | new_items.keys()
        if old_items.get(key) != new_items.get(key)
    )


def located_in_file(items: Iterable[Item], file: str) -> DocumentOf:
    """Return a function that returns the document of a published object, with the file `file`."""
    by_key = {item.key: item for item in items}
    return lambda key: Document(file, by_key[key].parsed if key in by_key else None)


def located_in_request(put: Mapping[Key, Located]) -> DocumentOf:
    """Return a function that returns the document of an object in a request.

    A change can also make other objects invalid. The document of another object is empty, and has
    the kind and the name of the object as its file.
    """
    return lambda key: put[key].document if key in put else Document(f"{key[0]} '{key[1]}'", None)


def revision_record(revision: int, changed: Collection[Key], after: Catalog) -> RevisionRecord:
    """Return the entry of the history for a revision that is published now."""
    put = sorted(f"{kind} {name}" for kind, name in changed if after.item((kind, name)))
    deleted = sorted(f"{kind} {name}" for kind, name in changed if not after.item((kind, name)))
    return RevisionRecord(revision, int(time.time() * 1000), put, deleted)
