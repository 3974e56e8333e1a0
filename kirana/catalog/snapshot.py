"""One revision of the catalog as the parts of Kirana use it: resolved, immutable, by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from kirana.catalog.objects import (
    CandidateGeneratorObject,
    CatalogObject,
    EventTypeObject,
    FlowObject,
    InferflowObject,
    ModelObject,
)
from kirana.catalog.storage_records import StorageRecord
from kirana.errors import Unknown
from kirana.revision import Revision
from kirana.schema import Entity, Feature, FeatureGroup


@dataclass(frozen=True)
class Catalog:
    """Before it is published, `revision` is `NO_REVISION`."""

    revision: Revision
    objects: tuple[CatalogObject, ...] = field(repr=False)
    entities: Mapping[str, Entity]
    groups: Mapping[str, FeatureGroup]
    event_types: Mapping[str, EventTypeObject]
    generators: Mapping[str, CandidateGeneratorObject]
    models: Mapping[str, ModelObject]
    inferflows: Mapping[str, InferflowObject]
    flows: Mapping[str, FlowObject]
    storage: Mapping[str, tuple[StorageRecord, ...]] = field(repr=False)
    """For each entity, what its rows were stored by, up to now."""

    def entity(self, name: str, *, field: str | None = None) -> Entity:
        if name not in self.entities:
            raise Unknown("entity", name, self.entities, field=field)
        return self.entities[name]

    def group(self, name: str, *, field: str | None = None) -> FeatureGroup:
        if name not in self.groups:
            raise Unknown("feature_group", name, self.groups, field=field)
        return self.groups[name]

    def event_type(self, name: str, *, field: str | None = None) -> EventTypeObject:
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
