"""Changes that come as objects, not as files: put some, remove some, all in one revision."""

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
    """Objects as they were sent, by where they stood in the request; and what goes."""

    put: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    delete: Mapping[str, Key] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RevisionRecord:
    """One line of the history: what a revision put and removed, as `kind name`."""

    revision: int
    published_ms: int
    put: list[str]
    deleted: list[str]


class CatalogPublisher(Protocol):
    """Where revisions are made. Calls may block: locks, syncs, a look into model files."""

    def publish_change(self, change: Change, expected_revision: int | None) -> Published:
        """Make the live revision with `change` the next one, as one step.

        Raises `CatalogError` if it would not be valid, `Unknown` for what is to be deleted and
        isn't there, `Conflict` if another revision than the expected one is live.
        """

    def history(self, limit: int) -> list[RevisionRecord]:
        """Return the newest revisions, the live one first."""


def apply_change(live: Catalog, change: Change) -> tuple[dict[Key, Item], dict[Key, Located]]:
    """Return all objects with the change, and those that were put.

    Raises `CatalogError` for objects that are none, `Unknown` for those to delete.
    """
    for where, record in change.put.items():
        if _too_deep(record):
            raise CatalogError([Problem(f"it is nested more than {MAX_DEPTH} levels deep", where)])
    documents = [Document(where, dict(each)) for where, each in change.put.items()]
    put = {each.key: each for each in parse_documents(documents)}
    items = {item.key: item for item in live.all_items()}
    for key, located in put.items():
        _check_digest(located, items.get(key))
    for where, key in change.delete.items():
        kind, name = key
        if kind not in KINDS:
            raise Unknown("kind", kind, KINDS, field=_within(where, "kind"))
        if key not in items:
            raise Unknown(kind, name, live.items.get(kind, {}), field=_within(where, "name"))
        if key in put:
            message = f"{kind} '{name}' can't be put and deleted at once"
            raise CatalogError([Problem(message, where)])
        del items[key]
    return {**items, **{key: each.item for key, each in put.items()}}, put


def _within(where: str, field: str) -> FieldPath:
    """What is deleted by a path of HTTP is in no field of a body."""
    return (where, field) if where else (field,)


def _check_digest(put: Located, live: Item | None) -> None:
    """Refuse a model of another path whose digest is still that of the live one."""
    model, before = put.object, live.parsed if live else None
    if not isinstance(model, ModelObject) or not isinstance(before, ModelObject):
        return
    if model.sha256 and model.sha256 == before.sha256 and model.path != before.path:
        message = f"it is that of {before.path}: leave it out to take the file {model.path}"
        raise CatalogError([put.document.problem(message, "sha256")])


def _too_deep(value: object, levels: int = MAX_DEPTH) -> bool:
    inside: Sequence[object] = ()
    if isinstance(value, Mapping):
        inside = list(value.values())
    elif isinstance(value, list):
        inside = value
    return levels < 0 or any(_too_deep(each, levels - 1) for each in inside)
