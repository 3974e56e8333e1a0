"""One revision of the catalog: its objects by name, resolved and compiled when needed.

A revision does not change. It shares resolved and compiled objects with the revision before it. To
find out which compiled objects it can share, it records what their compilers have looked up.
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
    SourceObject,
)
from kirana.catalog.storage_records import Storage
from kirana.errors import FieldPath, Unknown
from kirana.revision import NO_REVISION, Revision
from kirana.schema import Entity, Feature, FeatureGroup

T = TypeVar("T")
Uses = frozenset[Key]
"""The keys that the compiler of an object has looked up, including the object's own key."""

Items = Mapping[str, Mapping[str, Item]]
"""The objects by kind and name."""

EVERY = "*"
"""In `Uses`, the name that stands for all objects of a kind."""

IDS: Key = ("ids", EVERY)
"""In `Uses`, the key that stands for `Catalog.id_names`."""

_current_uses: ContextVar[set[Key] | None] = ContextVar("uses", default=None)
"""The uses of the object that is being compiled, or None."""


class _View(Mapping[str, T], Generic[T]):
    """The objects of one kind by name, resolved on first access. Each access is recorded."""

    def __init__(self, catalog: Catalog, kind: str) -> None:
        self._catalog = catalog
        self._kind = kind
        self._items = catalog.items.get(kind, {})

    def __getitem__(self, name: str) -> T:
        _record_use((self._kind, name))
        if name not in self._items:
            raise KeyError(name)
        return cast(T, self._catalog.resolved(self._kind, name))

    def __contains__(self, name: object) -> bool:
        _record_use((self._kind, str(name)))
        return name in self._items

    def __iter__(self) -> Iterator[str]:
        _record_use((self._kind, EVERY))
        return iter(self._items)

    def __len__(self) -> int:
        _record_use((self._kind, EVERY))
        return len(self._items)


def _record_use(key: Key) -> None:
    """Add `key` to the uses of the object that is being compiled, if there is one."""
    uses = _current_uses.get()
    if uses is not None:
        uses.add(key)


def by_kind(items: Mapping[Key, Item]) -> dict[str, dict[str, Item]]:
    """Return the objects by kind and name."""
    grouped: dict[str, dict[str, Item]] = {}
    for (kind, name), item in items.items():
        grouped.setdefault(kind, {})[name] = item
    return grouped


class Catalog:
    """One revision of the catalog. Before it is published, `revision` is `NO_REVISION`.

    `versions` are the schema versions by group, and `storage` the storage records by entity, both
    in order. `uses` are passed in if the revision is already known to be valid.
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
        self.sources: Mapping[str, SourceObject] = _View(self, "source")
        self.generators: Mapping[str, CandidateGeneratorObject] = _View(self, "candidate_generator")
        self.models: Mapping[str, ModelObject] = _View(self, "model")
        self.inferflows: Mapping[str, InferflowObject] = _View(self, "inferflow")
        self.flows: Mapping[str, FlowObject] = _View(self, "flow")

    @property
    def history(self) -> History:
        """The schema versions and storage records of this revision."""
        return History(self.versions, self.storage)

    @property
    def objects(self) -> list[CatalogObject]:
        """All objects, parsed, in the order of kinds (`KINDS`) and names."""
        return [item.parsed for item in self.all_items()]

    def all_items(self) -> list[Item]:
        """Return all objects, in the order of kinds (`KINDS`) and names."""
        return [self.items[k][name] for k in KINDS for name in sorted(self.items.get(k, ()))]

    def item(self, key: Key) -> Item | None:
        """Return an object, or None if it does not exist. This does not record a use."""
        return self.items.get(key[0], {}).get(key[1])

    @property
    def id_names(self) -> frozenset[str]:
        """The names of ids: those of the keys of entities, and of the contexts of inferflows."""
        _record_use(IDS)
        if self._id_names is None:
            token = _current_uses.set(None)
            names = {key.name for entity in self.entities.values() for key in entity.keys}
            names |= {name for inferflow in self.inferflows.values() for name in inferflow.context}
            _current_uses.reset(token)
            self._id_names = frozenset(names)
        return self._id_names

    def resolved(self, kind: str, name: str) -> Any:
        """Return an object in the form that other packages use, for example an `Entity`.

        Raise `KeyError` if it does not exist.
        """
        key = (kind, name)
        resolved = self._resolved.get(key)
        if resolved is None:
            resolved = self._resolved[key] = self._resolve(self.items[kind][name].parsed)
        return resolved

    def _resolve(self, declared: CatalogObject) -> Any:
        if isinstance(declared, EntityObject):
            return declared.resolved
        if isinstance(declared, FeatureGroupObject):
            entity = self.resolved("entity", declared.entity)
            versions = tuple(self.versions[declared.name])
            checksum = declared.checksum != "none"
            return FeatureGroup(
                declared.name, entity, declared.ttl or 0, declared.codec, versions, checksum
            )
        return declared

    def compiled(self, kind: str, name: str) -> Any:
        """Return a compiled object. The first call compiles it.

        Raise `CatalogError` if it can't be compiled, and `KeyError` if it does not exist or its
        kind has no compiler.
        """
        key = (kind, name)
        if key not in self._compiled:
            uses: set[Key] = {key}
            token = _current_uses.set(uses)
            try:
                compiled = self._compilers[kind](self.items[kind][name].parsed, self)
            finally:
                _current_uses.reset(token)
            self._uses[key] = frozenset(uses)
            self._compiled[key] = compiled
        outer_uses = _current_uses.get()
        if outer_uses is not None:
            outer_uses |= self._uses[key]
        return self._compiled[key]

    def share(self, before: Catalog, outdated: set[Key]) -> set[Key]:
        """Share the resolved and compiled objects of `before` that do not use `outdated` ones.

        Return the keys of the objects that must be compiled again, because their compilers looked
        up outdated objects.
        """
        outdated_uses = outdated | {(kind, EVERY) for kind, _ in outdated}
        entities = {name for kind, name in outdated if kind == "entity"}
        if entities:
            # A resolved group contains its entity.
            groups = self.items.get("feature_group", {})
            group_keys = {("feature_group", g) for g in groups if g.partition(".")[0] in entities}
            outdated_uses |= group_keys
        if {"entity", "inferflow"} & {kind for kind, _ in outdated}:
            if self.id_names != before.id_names:
                outdated_uses.add(IDS)
        else:
            self._id_names = before._id_names
        # Iterate over copies, because requests on `before` may resolve more objects meanwhile.
        for key, value in list(before._resolved.items()):
            if key not in outdated_uses and self.item(key) is not None:
                self._resolved[key] = value
        stale = set()
        for key, uses in list(before._uses.items()):
            if self.item(key) is None:
                continue
            if uses.isdisjoint(outdated_uses):
                self._uses[key] = uses
                if key in before._compiled:
                    self._compiled[key] = before._compiled[key]
            else:
                stale.add(key)
        return stale

    @property
    def uses(self) -> Mapping[Key, Uses]:
        """The keys that the compiler of each object has looked up, by the key of the object."""
        return self._uses

    def at(self, revision: Revision) -> Catalog:
        """Return a copy for `revision`. The two share resolved and compiled objects."""
        catalog = Catalog(
            self.items, self.versions, self.storage, self._compilers, revision=revision
        )
        catalog._resolved, catalog._compiled = self._resolved, self._compiled
        catalog._uses, catalog._id_names = self._uses, self._id_names
        return catalog

    def entity(self, name: str, *, field: str | None = None) -> Entity:
        """Return an entity by name. Raise `Unknown`, with this `field`, if there is none."""
        if name not in self.entities:
            raise Unknown("entity", name, self.entities, field=field)
        return self.entities[name]

    def group(self, name: str, *, field: str | None = None) -> FeatureGroup:
        """Return a feature group by name. Raise `Unknown`, with this `field`, if there is none."""
        if name not in self.groups:
            raise Unknown("feature_group", name, self.groups, field=field)
        return self.groups[name]

    def event_type(self, name: str, *, field: str | FieldPath | None = None) -> EventTypeObject:
        """Return an event type by name. Raise `Unknown`, with this `field`, if there is none."""
        if name not in self.event_types:
            raise Unknown("event_type", name, self.event_types, field=field)
        return self.event_types[name]

    def model(self, name: str, *, field: str | None = None) -> ModelObject:
        """Return a model by name. Raise `Unknown`, with this `field`, if there is none."""
        if name not in self.models:
            raise Unknown("model", name, self.models, field=field)
        return self.models[name]

    def inferflow(self, name: str, *, field: str | None = None) -> InferflowObject:
        """Return an inferflow by name. Raise `Unknown`, with this `field`, if there is none."""
        if name not in self.inferflows:
            raise Unknown("model_id", name, self.inferflows, field=field)
        return self.inferflows[name]

    def flow(self, name: str, *, field: str | None = None) -> FlowObject:
        """Return a flow by name. Raise `Unknown`, with this `field`, if there is none."""
        if name not in self.flows:
            raise Unknown("flow", name, self.flows, field=field)
        return self.flows[name]

    def feature(self, name: str, *, field: str | None = None) -> tuple[FeatureGroup, Feature]:
        """Return the group of the feature `entity.group.feature`, and the feature.

        The name of the feature may be an alias. Raise `Unknown`, with this `field`, if there is no
        such feature.
        """
        group_name, _, feature_name = name.rpartition(".")
        if group_name not in self.groups:
            feature_names = [
                f"{group.name}.{feature.name}"
                for group in self.groups.values()
                for feature in group.current.features
            ]
            raise Unknown("feature", name, feature_names, field=field)
        group = self.groups[group_name]
        return group, group.current.feature_or_alias(feature_name, field=field)
