"""Validate the objects of a catalog against each other, and make one revision of them.

Problems are collected, each with its file, line and path, so that one run shows as many as
possible. If an earlier revision was valid, only objects that have changed since are checked, and
objects that depend on them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from kirana.catalog.checks import Checks
from kirana.catalog.documents import Document
from kirana.catalog.group_checks import GroupChecks
from kirana.catalog.history import History
from kirana.catalog.items import Item, Key
from kirana.catalog.objects import (
    EntityObject,
    FeatureGroupObject,
    ModelObject,
)
from kirana.catalog.records import Records
from kirana.catalog.snapshot import Catalog, by_kind
from kirana.catalog.storage_records import StorageRecord, check_keys, extended
from kirana.errors import CatalogError, KiranaError, Problem
from kirana.schema import RESERVED_ENTITY, SchemaVersion

DocumentOf = Callable[[Key], Document]
"""A function that returns the document that an object is written in."""


@dataclass(frozen=True, slots=True)
class Validated:
    """A catalog that can be published, and warnings for its author.

    `changed` are the keys of the objects that differ from the previous revision, deleted ones
    included. Without a previous revision, these are the keys of all objects.
    """

    catalog: Catalog
    warnings: tuple[Problem, ...]
    changed: frozenset[Key]


def validate(
    items: Mapping[Key, Item],
    document_of: DocumentOf,
    history: History,
    checks: Checks,
    before: Catalog | None = None,
) -> Validated:
    """Check and compile objects, and return them as a catalog that is not published yet.

    If the features of a group differ from its last schema version, they make a new one. With
    `checks.models`, each model gets the digest of its bytes. With `checks.check_model`, the model
    files are checked. If `before`, a valid catalog, is given, share its unchanged objects, and
    check only changed objects and those that depend on them. Raise `CatalogError` with the problems
    if the objects are not valid.
    """
    return _Validation(dict(items), document_of, history, checks, before).run()


class _Validation:
    def __init__(
        self,
        items: dict[Key, Item],
        document_of: DocumentOf,
        history: History,
        checks: Checks,
        before: Catalog | None,
    ) -> None:
        self.items = items
        self.document_of = document_of
        self.history = history
        self.checks = checks
        self.before = before
        self.problems: list[Problem] = []
        self.warnings: list[Problem] = []

    def refuse(self, key: Key, message: str, path: str = "") -> None:
        """Add a problem with an object."""
        self.problems.append(self.document_of(key).problem(message, path))

    def add_problems(self, key: Key, error: CatalogError) -> None:
        """Add the problems that a compiler has found, with file and line."""
        for problem in error.problems:
            self.refuse(key, problem.message, problem.path)

    def raise_problems(self) -> None:
        """Raise `CatalogError` if there are problems."""
        if self.problems:
            raise CatalogError(list(dict.fromkeys(self.problems)))

    def run(self) -> Validated:
        self._pin_models()
        changed = self._changed()
        outdated = changed | self._with_changed_records()
        to_check = self._with_groups(outdated)
        self._check_entities(to_check)
        if any(kind == "event_type" for kind, _ in changed):
            self._check_event_types()
        versions = self._versions(to_check)
        # Compilers need a catalog without problems.
        if not self.problems:
            catalog = self._catalog(versions, to_check)
            self._compile(catalog, outdated)
        self.raise_problems()
        return Validated(catalog, tuple(self.warnings), frozenset(changed))

    def _pin_models(self) -> None:
        """Set the `sha256` of all models, so that the revision determines their bytes.

        Without `checks.models`, the models stay as they are.
        """
        models = self.checks.models
        if models is None:
            return
        for key in [key for key in self.items if key[0] == "model"]:
            model = self.items[key].parsed
            assert isinstance(model, ModelObject)
            try:
                digest = models.digest(model)
            except KiranaError as error:
                self.refuse(key, error.message, error.field or "path")
                continue
            if digest != model.sha256:
                self.items[key] = Item.of(model.model_copy(update={"sha256": digest}))

    def _changed(self) -> set[Key]:
        """Return the keys of the objects that differ from `before`, deleted ones included.

        Without `before`, return all keys.
        """
        if self.before is None:
            return set(self.items)
        old_items = {
            item.key: item for by_name in self.before.items.values() for item in by_name.values()
        }
        changed = set(old_items.keys() - self.items.keys())
        for key, item in self.items.items():
            old_item = old_items.get(key)
            if old_item is item:
                continue
            if old_item == item:
                # The item of `before` may already be parsed.
                self.items[key] = old_item
            else:
                changed.add(key)
        return changed

    def _with_changed_records(self) -> set[Key]:
        """Return the groups and entities whose records differ from those of `before`.

        Another publisher may have appended records.
        """
        if self.before is None:
            return set()
        history, before = self.history, self.before
        groups = (
            name
            for name, records in before.versions.items()
            if history.versions.get(name) != records
        )
        entities = (
            name for name, records in before.storage.items() if history.storage.get(name) != records
        )
        return {
            *(("feature_group", name) for name in groups),
            *(("entity", name) for name in entities),
        }

    def _with_groups(self, outdated: Collection[Key]) -> set[Key]:
        """Return the keys of existing outdated objects, and of all groups of outdated entities."""
        entities = {name for kind, name in outdated if kind == "entity"}
        groups = {
            key
            for key in self.items
            if key[0] == "feature_group" and key[1].partition(".")[0] in entities
        }
        return {key for key in {*outdated, *groups} if key in self.items}

    def _check_entities(self, to_check: Collection[Key]) -> None:
        for key in self._in_order(to_check, "entity"):
            entity = self.items[key].parsed
            assert isinstance(entity, EntityObject)
            names = [entity_key.name for entity_key in entity.keys]
            if len(set(names)) < len(names):
                self.refuse(key, f"a key is given twice: {', '.join(names)}", "keys")
            if entity.name == RESERVED_ENTITY:
                message = f"'{RESERVED_ENTITY}' is reserved for the inputs of inferflows"
                self.refuse(key, message, "name")
            for problem in check_keys(self.history.storage.get(entity.name, ()), entity.resolved):
                self.refuse(key, problem.message, problem.path)

    def _check_event_types(self) -> None:
        """Refuse names that end with `_` and the name of another event type."""
        names = {name for kind, name in self.items if kind == "event_type"}
        for key in self._in_order(self.items, "event_type"):
            name = key[1]
            endings = (
                name[position + 1 :] for position, character in enumerate(name) if character == "_"
            )
            for suffix in filter(names.__contains__, endings):
                self.refuse(
                    key,
                    f"'{name}' ends with '_' and the name of the event type '{suffix}': choose "
                    "another name",
                    "name",
                )

    def _versions(self, to_check: Collection[Key]) -> dict[str, Records[SchemaVersion]]:
        """Check groups, and return the schema versions of all groups.

        A group whose features have changed gets a new schema version.
        """
        by_group: dict[str, Records[SchemaVersion]] = {}
        if self.before is not None:
            names = {name for kind, name in self.items if kind == "feature_group"}
            by_group = {
                group_name: group_versions
                for group_name, group_versions in self.before.versions.items()
                if group_name in names
            }
        entities = {
            name: item.parsed.resolved
            for (kind, name), item in self.items.items()
            if kind == "entity" and isinstance(item.parsed, EntityObject)
        }
        for key in self._in_order(to_check, "feature_group"):
            group = self.items[key].parsed
            assert isinstance(group, FeatureGroupObject)
            checks = GroupChecks(group, entities, self.history)
            versions = checks.run()
            for problem in checks.problems:
                self.refuse(key, problem.message, problem.path)
            if versions is not None:
                by_group[group.name] = versions
        return by_group

    def _catalog(
        self, versions: Mapping[str, Records[SchemaVersion]], to_check: Collection[Key]
    ) -> Catalog:
        """Return the catalog of all objects. Its entities get new storage records if needed."""
        storage: dict[str, Records[StorageRecord]] = {}
        if self.before is not None:
            old_storage = self.before.storage.items()
            storage = {
                name: records for name, records in old_storage if ("entity", name) in self.items
            }
        catalog = Catalog(by_kind(self.items), versions, storage, self.checks.compilers)
        groups = [name for kind, name in to_check if kind == "feature_group"]
        entities = {name for kind, name in to_check if kind == "entity"}
        for entity in sorted(entities | {name.partition(".")[0] for name in groups}):
            # The records of the entity already describe its other groups.
            own_groups = [
                catalog.groups[g] for g in sorted(set(groups)) if g.startswith(f"{entity}.")
            ]
            history = self.history.storage.get(entity)
            storage[entity] = extended(history, catalog.entities[entity], own_groups)
        return catalog

    def _compile(self, catalog: Catalog, outdated: set[Key]) -> None:
        """Compile outdated objects and those that depend on them, and check their model files."""
        to_compile = {key for key in outdated if key in self.items}
        if self.before is not None:
            to_compile |= catalog.share(self.before, outdated)
        kinds = list(self.checks.compilers)
        self._compile_kinds(catalog, to_compile, kinds[:-1])
        self._check_models(catalog, to_compile)
        # Flows are the last kind. They build on the other kinds, which must have no problems.
        self._compile_kinds(catalog, to_compile, [] if self.problems else kinds[-1:])

    def _compile_kinds(self, catalog: Catalog, keys: Collection[Key], kinds: Sequence[str]) -> None:
        for key in [key for kind in kinds for key in self._in_order(keys, kind)]:
            try:
                catalog.compiled(*key)
            except CatalogError as error:
                self.add_problems(key, error)

    def _check_models(self, catalog: Catalog, keys: Collection[Key]) -> None:
        """Check the model files that these objects use, unless there are problems already."""
        if self.checks.check_model is None or self.problems:
            return
        for finding in self.checks.check_model(catalog, keys):
            problem = self.document_of(finding.key).problem(finding.message, finding.path)
            (self.problems if finding.wrong else self.warnings).append(problem)

    def _in_order(self, keys: Collection[Key], kind: str) -> list[Key]:
        """Return the keys of one kind among `keys`, in the order of `items`."""
        chosen = {key for key in keys if key[0] == kind}
        if len(chosen) <= 1:
            return list(chosen)
        return [key for key in self.items if key in chosen]
