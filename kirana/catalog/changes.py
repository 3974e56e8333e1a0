"""Changes of a catalog that are sent as objects, not as files. One change makes one revision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from kirana.catalog.documents import MAX_DEPTH, Document
from kirana.catalog.items import Item, Key
from kirana.catalog.objects import KINDS, ModelObject
from kirana.catalog.snapshot import Catalog
from kirana.catalog.sources import Located, parse_documents
from kirana.errors import CatalogError, FieldPath, Problem, Unknown

if TYPE_CHECKING:
    from kirana.catalog.publishing import Published


@dataclass(frozen=True, slots=True)
class Change:
    """The objects to put, as they were sent, and the keys of the objects to delete.

    Both are keyed by the place of the object in the request, such as `objects[2]`, which is the
    `file` of its problems. The place is "" for a deleted object that the request's path names.
    """

    put: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    delete: Mapping[str, Key] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RevisionRecord:
    """One entry of the history: the objects that a revision put and deleted.

    Each object is a text, `kind name`. `published_ms` is in Unix milliseconds.
    """

    revision: int
    published_ms: int
    put: list[str]
    deleted: list[str]


class CatalogPublisher(Protocol):
    """The writing side of a catalog backend. Calls block, for example on locks and file syncs."""

    def publish_change(self, change: Change, expected_revision: int | None) -> Published:
        """Apply `change` to the live revision, and publish the result as the next one, atomically.

        If the result equals the live revision, publish nothing. Raise `CatalogError` if the result
        is not valid, and `Unknown` if an object to delete, or its kind, does not exist. Raise
        `Conflict` if `expected_revision` is given and is not live, if the catalog has no revision
        yet, or if a file or the live revision changes during the publish.
        """

    def history(self, limit: int) -> list[RevisionRecord]:
        """Return at most `limit` entries, the newest first, beginning with the live revision.

        Revisions without a readable entry are left out.
        """


def apply_change(live: Catalog, change: Change) -> tuple[dict[Key, Item], dict[Key, Located]]:
    """Return all objects of `live` after the change, and the objects that the change puts.

    Raise `CatalogError` for an object that is not valid, or that is both put and deleted. Raise
    `Unknown` if an object to delete, or its kind, does not exist.
    """
    for place, record in change.put.items():
        if _too_deep(record):
            raise CatalogError(
                [Problem(f"the object is nested more than {MAX_DEPTH} levels deep", place)]
            )
    documents = [Document(place, dict(record)) for place, record in change.put.items()]
    put = {located.key: located for located in parse_documents(documents)}
    items = {item.key: item for item in live.all_items()}
    for key, new_object in put.items():
        _check_digest(new_object, items.get(key))
    for place, key in change.delete.items():
        kind, name = key
        if kind not in KINDS:
            raise Unknown("kind", kind, KINDS, field=_within(place, "kind"))
        if key not in items:
            raise Unknown(kind, name, live.items.get(kind, {}), field=_within(place, "name"))
        if key in put:
            message = f"{kind} '{name}' can't be both put and deleted"
            raise CatalogError([Problem(message, place)])
        del items[key]
    return {**items, **{key: located.item for key, located in put.items()}}, put


def _within(where: str, field: str) -> FieldPath:
    """Return the path of `field` in the object at `where`, or of `field` alone if `where` is ""."""
    return (where, field) if where else (field,)


def _check_digest(put: Located, live: Item | None) -> None:
    """Refuse a model that gets a new path but keeps the digest of the live model.

    The digest would win over the path, so the new file would not be published.
    """
    new_model, live_model = put.object, live.parsed if live else None
    if not isinstance(new_model, ModelObject) or not isinstance(live_model, ModelObject):
        return
    if (
        new_model.sha256
        and new_model.sha256 == live_model.sha256
        and new_model.path != live_model.path
    ):
        message = (
            f"'sha256' is the digest of '{live_model.path}': leave it out to publish "
            f"'{new_model.path}'"
        )
        raise CatalogError([put.document.problem(message, "sha256")])


def _too_deep(value: object, levels: int = MAX_DEPTH) -> bool:
    """Return whether the mappings and lists in a value are nested more than `levels` deep."""
    values: Sequence[object] = ()
    if isinstance(value, Mapping):
        values = list(value.values())
    elif isinstance(value, list):
        values = value
    return levels < 0 or any(_too_deep(inner, levels - 1) for inner in values)
