"""From documents to one revision: names that are taken, references to nothing, what can't run.

All problems are collected, each with its file, line and path, so that one run shows them all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from kirana.catalog.documents import Document, parse_object
from kirana.catalog.feature_objects import feature_of
from kirana.catalog.history import History
from kirana.catalog.model_checks import ModelChecks
from kirana.catalog.model_store import ModelStore
from kirana.catalog.objects import (
    CandidateGeneratorObject,
    CatalogObject,
    EntityObject,
    EventTypeObject,
    FeatureGroupObject,
    FlowObject,
    InferflowObject,
    ModelObject,
)
from kirana.catalog.snapshot import Catalog
from kirana.catalog.storage_records import StorageRecord, check_codec, check_keys, extended
from kirana.codecs import CODECS
from kirana.codecs.packed.codec import MAX_BODY_BYTES
from kirana.codecs.packed.layout import Layout
from kirana.errors import CatalogError, KiranaError, Problem, did_you_mean
from kirana.flow.generators import build_generator
from kirana.flow.graph import compile_flow
from kirana.inferflow.plan import INPUT, compile_inferflow
from kirana.revision import NO_REVISION
from kirana.schema import (
    EVENT_TIME,
    NUMERIC,
    Entity,
    Feature,
    FeatureGroup,
    Key,
    SchemaVersion,
)

MAX_VERSIONS = 0xFFFF
O = TypeVar("O", bound=CatalogObject)  # noqa: E741


@dataclass(frozen=True, slots=True)
class Placed:
    """An object and where it was written."""

    object: CatalogObject
    document: Document

    @property
    def key(self) -> tuple[str, str]:
        return (self.object.kind, self.object.name)


def parse_documents(documents: Iterable[Document]) -> list[Placed]:
    """Parse every document. Raises `CatalogError` with the problems of all of them."""
    placed: dict[tuple[str, str], Placed] = {}
    problems: list[Problem] = []
    for document in documents:
        if document.data is None:
            continue
        try:
            each = Placed(parse_object(document), document)
        except CatalogError as error:
            problems += error.problems
            continue
        first = placed.setdefault(each.key, each)
        if first is not each:
            kind, name = each.key
            where = f"{first.document.file}:{first.document.lines.get('', 0)}"
            problems.append(document.problem(f"{kind} '{name}' is already in {where}", "name"))
    if problems:
        raise CatalogError(problems)
    return list(placed.values())


@dataclass(frozen=True, slots=True)
class Validated:
    """A catalog that may be published, and what its author should still look at."""

    catalog: Catalog
    warnings: tuple[Problem, ...]


def validate(placed: Sequence[Placed], history: History, models: ModelStore | None) -> Validated:
    """Resolve everything and compile what runs; return the catalog, not published yet.

    Features that differ from the end of their group's history make the next schema version. With
    `models` every model is looked into, tried out, and gets the digest of its bytes.
    Raises `CatalogError`.
    """
    return _Validation(placed, history, models).run()


class _Validation:
    def __init__(
        self, placed: Sequence[Placed], history: History, models: ModelStore | None
    ) -> None:
        self.placed = placed
        self.history = history
        self.models = models
        self.problems: list[Problem] = []
        self.warnings: list[Problem] = []

    def of(self, type_: type[O]) -> list[tuple[O, Document]]:
        return [(e.object, e.document) for e in self.placed if isinstance(e.object, type_)]

    def named(self, type_: type[O]) -> dict[str, O]:
        return {each.name: each for each, _ in self.of(type_)}

    def refuse(self, document: Document, message: str, path: str = "") -> None:
        self.problems.append(document.problem(message, path))

    def take(self, document: Document, error: CatalogError) -> None:
        """Give the problems of a compiler, which knows paths alone, their file and line."""
        for problem in error.problems:
            self.problems.append(document.problem(problem.message, problem.path))

    def stop_if_any(self) -> None:
        if self.problems:
            raise CatalogError(list(dict.fromkeys(self.problems)))

    def run(self) -> Validated:
        if self.models is not None:
            self.placed = [self._pinned(each, self.models) for each in self.placed]
        catalog = Catalog(
            revision=NO_REVISION,
            objects=tuple(each.object for each in self.placed),
            entities=self._entities(),
            groups={},
            event_types=self._event_types(),
            generators=self.named(CandidateGeneratorObject),
            models=self.named(ModelObject),
            inferflows=self.named(InferflowObject),
            flows=self.named(FlowObject),
            storage={},
        )
        groups = self._groups(catalog.entities)
        catalog = replace(catalog, groups=groups, storage=self._storage(catalog.entities, groups))
        self.stop_if_any()
        self._check_generators(catalog)
        self._check_inferflows(catalog)
        self.stop_if_any()
        for flow, document in self.of(FlowObject):
            try:
                compile_flow(flow, catalog)
            except CatalogError as error:
                self.take(document, error)
        self.stop_if_any()
        return Validated(catalog, tuple(self.warnings))

    def _pinned(self, placed: Placed, models: ModelStore) -> Placed:
        """Give a model the digest of its bytes: it is a part of the revision."""
        model = placed.object
        if not isinstance(model, ModelObject):
            return placed
        try:
            digest = models.digest(model)
        except KiranaError as error:
            self.refuse(placed.document, error.message, error.field or "path")
            return placed
        return replace(placed, object=model.model_copy(update={"sha256": digest}))

    def _storage(
        self, entities: Mapping[str, Entity], groups: Mapping[str, FeatureGroup]
    ) -> dict[str, tuple[StorageRecord, ...]]:
        return {
            name: extended(
                self.history.storage.get(name, ()),
                entity,
                [group for group in groups.values() if group.entity.name == name],
            )
            for name, entity in entities.items()
        }

    def _entities(self) -> dict[str, Entity]:
        entities = {}
        for each, document in self.of(EntityObject):
            names = [key.name for key in each.keys]
            if len(set(names)) < len(names):
                self.refuse(document, f"a key stands here twice: {names}", "keys")
            if each.name == INPUT:
                self.refuse(document, f"'{INPUT}' is the name of an inferflow's inputs", "name")
            keys = tuple(Key(key.name, key.dtype) for key in each.keys)
            entities[each.name] = Entity(each.name, keys)
            history = self.history.storage.get(each.name, ())
            for problem in check_keys(history, entities[each.name]):
                self.refuse(document, problem.message, problem.path)
        return entities

    def _event_types(self) -> dict[str, EventTypeObject]:
        types = self.named(EventTypeObject)
        for each, document in self.of(EventTypeObject):
            one = each.name
            ends = (one[at + 1 :] for at, character in enumerate(one) if character == "_")
            for other in filter(types.__contains__, ends):
                self.refuse(
                    document,
                    f"'{one}' ends like '_{other}': the stored key <user>_{one} would also be "
                    f"that of '{other}' for another user",
                    "name",
                )
        return types

    def _groups(self, entities: Mapping[str, Entity]) -> dict[str, FeatureGroup]:
        groups = {}
        for each, document in self.of(FeatureGroupObject):
            entity = entities.get(each.name.partition(".")[0])
            if entity is None:
                name = each.name.partition(".")[0]
                hint = did_you_mean(name, entities)
                self.refuse(document, f"unknown entity '{name}': {hint}", "name")
                continue
            if each.codec not in CODECS:
                hint = did_you_mean(each.codec, CODECS)
                self.refuse(document, f"unknown codec '{each.codec}': {hint}", "codec")
                continue
            for problem in check_codec(
                self.history.storage.get(entity.name, ()), each.name, each.codec
            ):
                self.refuse(document, problem.message, problem.path)
            before = len(self.problems)
            features = self._features(each, entity, document)
            if len(self.problems) > before:
                continue
            stride = Layout(SchemaVersion(each.name, 1, features)).stride
            if stride > MAX_BODY_BYTES:
                message = f"a row takes {stride} bytes, the limit is {MAX_BODY_BYTES}"
                self.refuse(document, message, "features")
                continue
            history = self._history(each.name, features, document)
            checksum = each.checksum != "none"
            if checksum and each.codec != "packed":
                self.refuse(document, f"the codec '{each.codec}' has no checksum", "checksum")
            groups[each.name] = FeatureGroup(
                each.name, entity, each.ttl or 0, each.codec, tuple(history), checksum
            )
        return groups

    def _features(
        self, group: FeatureGroupObject, entity: Entity, document: Document
    ) -> tuple[Feature, ...]:
        features: dict[str, Feature] = {}
        # of a file of rows, one column would be two things
        reserved = {key.name: f"is a key of '{entity.name}'" for key in entity.keys}
        reserved[EVENT_TIME] = "is the time of a row"
        for at, each in enumerate(group.features):
            path = f"features[{at}]"
            if each.name in reserved:
                message = f"'{each.name}' {reserved[each.name]}: a feature needs another name"
                self.refuse(document, message, f"{path}.name")
            if each.name in features:
                self.refuse(document, f"'{each.name}' stands here twice", f"{path}.name")
            if each.shape and each.dtype not in NUMERIC:
                self.refuse(document, f"a vector of {each.dtype} can't be stored", f"{path}.shape")
                continue
            try:
                features[each.name] = feature_of(each)
            except ValueError as error:
                self.refuse(document, str(error), f"{path}.default")
        self._check_aliases(group, document)
        return tuple(features.values())

    def _check_aliases(self, group: FeatureGroupObject, document: Document) -> None:
        taken = {each.name for each in group.features}
        for at, each in enumerate(group.features):
            for number, alias in enumerate(each.aliases):
                if alias in taken:
                    path = f"features[{at}].aliases[{number}]"
                    again = alias == each.name or alias in each.aliases[:number]
                    what = "stands here twice" if again else "is the name of another feature"
                    self.refuse(document, f"'{alias}' {what}", path)
                taken.add(alias)

    def _history(
        self, group: str, features: tuple[Feature, ...], document: Document
    ) -> list[SchemaVersion]:
        history = list(self.history.versions.get(group, ()))
        if history and history[-1].features == features:
            return history
        for version in history:
            for at, feature in enumerate(features):
                names = [n for n in (feature.name, *feature.aliases) if n in version.index]
                if len(names) > 1:
                    self.refuse(
                        document,
                        f"schema version {version.number} has both {names}: a feature can't "
                        "have been both",
                        f"features[{at}].aliases",
                    )
                for old in map(version.feature, names):
                    if (old.dtype, old.shape) != (feature.dtype, feature.shape):
                        self.refuse(
                            document,
                            f"'{old.name}' was {old.dtype}{list(old.shape) or ''} in schema "
                            f"version {version.number}: rows of it are still there, so another "
                            "dtype or shape needs another name",
                            f"features[{at}]",
                        )
        self._check_renamed(history, features, document)
        if len(history) >= MAX_VERSIONS:
            self.refuse(document, f"'{group}' has used all {MAX_VERSIONS} schema versions")
        return [*history, SchemaVersion(group, len(history) + 1, features)]

    def _check_renamed(
        self, history: Sequence[SchemaVersion], features: tuple[Feature, ...], document: Document
    ) -> None:
        """Rows of the old name are still there: it is neither forgotten, nor given to another."""
        refused: set[int] = set()
        for version in history:
            for renamed in (each for each in version.features if each.aliases):
                for at, feature in enumerate(features):
                    names = (feature.name, *feature.aliases)
                    lost = [alias for alias in renamed.aliases if alias not in names]
                    if renamed.name in names and lost and at not in refused:
                        refused.add(at)
                        self.refuse(
                            document,
                            f"'{feature.name}' was called '{lost[0]}' before schema version "
                            f"{version.number}: keep that among its aliases, or its old rows are "
                            "read as defaults",
                            f"features[{at}].aliases",
                        )
                    taken = [alias for alias in renamed.aliases if alias in names]
                    if renamed.name not in names and taken and at not in refused:
                        refused.add(at)
                        self.refuse(
                            document,
                            f"'{taken[0]}' was renamed to '{renamed.name}' in schema version "
                            f"{version.number}: another feature needs another name",
                            f"features[{at}].name",
                        )

    def _check_generators(self, catalog: Catalog) -> None:
        for each, document in self.of(CandidateGeneratorObject):
            try:
                build_generator(each, catalog)
            except CatalogError as error:
                self.take(document, error)

    def _check_inferflows(self, catalog: Catalog) -> None:
        checks = ModelChecks(self.models, self.of(ModelObject))
        for inferflow, document in self.of(InferflowObject):
            try:
                plan = compile_inferflow(inferflow, catalog)
            except CatalogError as error:
                self.take(document, error)
                continue
            checks.take_plan(plan, document)
        if not self.problems:
            checks.try_out()
        self.problems += checks.problems
        self.warnings += checks.warnings
