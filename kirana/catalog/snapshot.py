"""One revision of the catalog as the parts of Kirana use it: resolved, immutable, by name.

What is resolved and compiled is made once. A revision shares with the one before it what has not
changed: of everything that was compiled it is known what it has looked up.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from typing import Any, Generic, TypeVar, cast

from kirana.catalog.checks import Compile
from kirana.catalog.history import History, Versions
from kirana.catalog.items import Item, Key
from kirana.catalog.objects import (
    KINDS,
    CandidateGeneratorObject,
    CatalogObject,
    EntityObject,
    EventTypeObject,
    FeatureGroupObject,
    FlowObject,
    InferflowObject,
    ModelObject,
)
from kirana.catalog.storage_records import Storage
from kirana.errors import FieldPath, Unknown
from kirana.revision import NO_REVISION, Revision
from kirana.schema import Entity, Feature, FeatureGroup

T = TypeVar("T")
Uses = frozenset[Key]
Items = Mapping[str, Mapping[str, Item]]
"""By kind and name."""

EVERY = "*"
"""Stands for all objects of a kind, where somebody has looked at all of them."""

IDS: Key = ("ids", EVERY)
"""Stands for `Catalog.id_names`."""

_uses: ContextVar[set[Key] | None] = ContextVar("uses", default=None)


class _View(Mapping[str, T], Generic[T]):
    """The objects of one kind by name, resolved when they are asked for."""

    def __init__(self, catalog: Catalog, kind: str) -> None:
        self._catalog = catalog
        self._kind = kind
        self._items = catalog.items.get(kind, {})

    def __getitem__(self, name: str) -> T:
        _note((self._kind, name))
        if name not in self._items:
            raise KeyError(name)
        return cast(T, self._catalog.resolved(self._kind, name))

    def __contains__(self, name: object) -> bool:
        _note((self._kind, str(name)))
        return name in self._items

    def __iter__(self) -> Iterator[str]:
        _note((self._kind, EVERY))
        return iter(self._items)

    def __len__(self) -> int:
        _note((self._kind, EVERY))
        return len(self._items)


def _note(key: Key) -> None:
    uses = _uses.get()
    if uses is not None:
        uses.add(key)


def by_kind(items: Mapping[Key, Item]) -> dict[str, dict[str, Item]]:
    """Return objects by kind and name."""
    found: dict[str, dict[str, Item]] = {}
    for (kind, name), item in items.items():
        found.setdefault(kind, {})[name] = item
    return found


class Catalog:
    """Before it is published, `revision` is `NO_REVISION`.

    `versions` are the schema versions of each group, in order. `storage` is, for each entity, what
    its rows were stored by, up to now. `uses` are known of a catalog that was valid elsewhere.
    """

    def __init__(
        self,
        items: Items,
        versions: Versions,
        storage: Storage,
        compilers: Mapping[str, Compile],
        *,
        revision: Revision = NO_REVISION,
        uses: Mapping[Key, Uses] | None = None,
    ) -> None:
        self.items = items
        self.versions = versions
        self.storage = storage
        self.revision = revision
        self._compilers = compilers
        self._resolved: dict[Key, Any] = {}
        self._compiled: dict[Key, Any] = {}
        self._uses = dict(uses or {})
        self._id_names: frozenset[str] | None = None
        self.entities: Mapping[str, Entity] = _View(self, "entity")
        self.groups: Mapping[str, FeatureGroup] = _View(self, "feature_group")
        self.event_types: Mapping[str, EventTypeObject] = _View(self, "event_type")
        self.generators: Mapping[str, CandidateGeneratorObject] = _View(self, "candidate_generator")
        self.models: Mapping[str, ModelObject] = _View(self, "model")
        self.inferflows: Mapping[str, InferflowObject] = _View(self, "inferflow")
        self.flows: Mapping[str, FlowObject] = _View(self, "flow")

    @property
    def history(self) -> History:
        """The records that the catalog was, or is to be, published with."""
        return History(self.versions, self.storage)

    @property
    def objects(self) -> list[CatalogObject]:
        """All objects as people wrote them, by kind and name."""
        return [item.parsed for item in self.all_items()]

    def all_items(self) -> list[Item]:
        """Return all objects, by kind and name."""
        return [self.items[k][name] for k in KINDS for name in sorted(self.items.get(k, ()))]

    def item(self, key: Key) -> Item | None:
        return self.items.get(key[0], {}).get(key[1])

    @property
    def id_names(self) -> frozenset[str]:
        """The names of ids: keys of entities, and what inferflows take in their context."""
        _note(IDS)
        if self._id_names is None:
            token = _uses.set(None)
            names = {key.name for each in self.entities.values() for key in each.keys}
            names |= {name for each in self.inferflows.values() for name in each.context}
            _uses.reset(token)
            self._id_names = frozenset(names)
        return self._id_names

    def resolved(self, kind: str, name: str) -> Any:
        """Return an object as others use it: an `Entity`, a `FeatureGroup`, else as it is."""
        key = (kind, name)
        found = self._resolved.get(key)
        if found is None:
            found = self._resolved[key] = self._resolve(self.items[kind][name].parsed)
        return found

    def _resolve(self, each: CatalogObject) -> Any:
        if isinstance(each, EntityObject):
            return each.resolved
        if isinstance(each, FeatureGroupObject):
            entity = self.resolved("entity", each.entity)
            versions = tuple(self.versions[each.name])
            checksum = each.checksum != "none"
            return FeatureGroup(each.name, entity, each.ttl or 0, each.codec, versions, checksum)
        return each

    def compiled(self, kind: str, name: str) -> Any:
        """Return what an object was compiled to, once. Raises `CatalogError` if it can't be."""
        key = (kind, name)
        if key not in self._compiled:
            uses: set[Key] = {key}
            token = _uses.set(uses)
            try:
                made = self._compilers[kind](self.items[kind][name].parsed, self)
            finally:
                _uses.reset(token)
            self._uses[key] = frozenset(uses)
            self._compiled[key] = made
        outer = _uses.get()
        if outer is not None:
            outer |= self._uses[key]
        return self._compiled[key]

    def share(self, before: Catalog, touched: set[Key]) -> set[Key]:
        """Take over from another revision what does not depend on the objects that differ.

        Return the objects that have to be compiled anew, of those that were there before.
        """
        changed = touched | {(kind, EVERY) for kind, _ in touched}
        entities = {name for kind, name in touched if kind == "entity"}
        if entities:
            # a group is resolved with its entity
            groups = self.items.get("feature_group", {})
            mine = {("feature_group", g) for g in groups if g.partition(".")[0] in entities}
            changed |= mine
        if {"entity", "inferflow"} & {kind for kind, _ in touched}:
            if self.id_names != before.id_names:
                changed.add(IDS)
        else:
            self._id_names = before._id_names
        # copies: requests that run on it resolve more meanwhile
        for key, value in list(before._resolved.items()):
            if key not in changed and self.item(key) is not None:
                self._resolved[key] = value
        stale = set()
        for key, uses in list(before._uses.items()):
            if self.item(key) is None:
                continue
            if uses.isdisjoint(changed):
                self._uses[key] = uses
                if key in before._compiled:
                    self._compiled[key] = before._compiled[key]
            else:
                stale.add(key)
        return stale

    @property
    def uses(self) -> Mapping[Key, Uses]:
        """What everything that was compiled has looked up."""
        return self._uses

    def at(self, revision: Revision) -> Catalog:
        """Return the same catalog as this revision."""
        made = Catalog(self.items, self.versions, self.storage, self._compilers, revision=revision)
        made._resolved, made._compiled = self._resolved, self._compiled
        made._uses, made._id_names = self._uses, self._id_names
        return made

    def entity(self, name: str, *, field: str | None = None) -> Entity:
        if name not in self.entities:
            raise Unknown("entity", name, self.entities, field=field)
        return self.entities[name]

    def group(self, name: str, *, field: str | None = None) -> FeatureGroup:
        if name not in self.groups:
            raise Unknown("feature_group", name, self.groups, field=field)
        return self.groups[name]

    def event_type(self, name: str, *, field: str | FieldPath | None = None) -> EventTypeObject:
        if name not in self.event_types:
            raise Unknown("event_type", name, self.event_types, field=field)
        return self.event_types[name]

    def model(self, name: str, *, field: str | None = None) -> ModelObject:
        if name not in self.models:
            raise Unknown("model", name, self.models, field=field)
        return self.models[name]

    def inferflow(self, name: str, *, field: str | None = None) -> InferflowObject:
        if name not in self.inferflows:
            raise Unknown("model_id", name, self.inferflows, field=field)
        return self.inferflows[name]

    def flow(self, name: str, *, field: str | None = None) -> FlowObject:
        if name not in self.flows:
            raise Unknown("flow", name, self.flows, field=field)
        return self.flows[name]

    def feature(self, name: str, *, field: str | None = None) -> tuple[FeatureGroup, Feature]:
        """Find `entity.group.feature` among the current schema versions, by its old names too."""
        group_name, _, feature_name = name.rpartition(".")
        if group_name not in self.groups:
            known = [
                f"{group.name}.{feature.name}"
                for group in self.groups.values()
                for feature in group.current.features
            ]
            raise Unknown("feature", name, known, field=field)
        group = self.groups[group_name]
        return group, group.current.renamed(feature_name, field=field)
