"""From objects to one revision: names that are taken, references to nothing, what can't run.

All problems are collected, each with its file, line and path, so that one run shows them all. Of a
catalog that was valid, what has not changed is not looked at again, nor what does not depend on it.
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

Where = Callable[[Key], Document]
"""Return where an object was written."""


@dataclass(frozen=True, slots=True)
class Validated:
    """A catalog that may be published, and what its author should still look at.

    `changed` are the objects that differ from those of the revision before, and those that are
    gone; all of them without one.
    """

    catalog: Catalog
    warnings: tuple[Problem, ...]
    changed: frozenset[Key]


def validate(
    items: Mapping[Key, Item],
    where: Where,
    history: History,
    checks: Checks,
    before: Catalog | None = None,
) -> Validated:
    """Resolve everything and compile what runs; return the catalog, not published yet.

    Features that differ from the end of their group's history make the next schema version. With
    `checks.models` every model gets the digest of its bytes, and with `checks.look_into` it is
    looked into. `before` is a valid catalog, of which all is shared that stays as it is.
    Raises `CatalogError`.
    """
    return _Validation(dict(items), where, history, checks, before).run()


class _Validation:
    def __init__(
        self,
        items: dict[Key, Item],
        where: Where,
        history: History,
        checks: Checks,
        before: Catalog | None,
    ) -> None:
        self.items = items
        self.where = where
        self.history = history
        self.checks = checks
        self.before = before
        self.problems: list[Problem] = []
        self.warnings: list[Problem] = []

    def refuse(self, key: Key, message: str, path: str = "") -> None:
        self.problems.append(self.where(key).problem(message, path))

    def take(self, key: Key, error: CatalogError) -> None:
        """Give the problems of a compiler, which knows paths alone, their file and line."""
        for problem in error.problems:
            self.refuse(key, problem.message, problem.path)

    def stop_if_any(self) -> None:
        if self.problems:
            raise CatalogError(list(dict.fromkeys(self.problems)))

    def run(self) -> Validated:
        self._pin_models()
        changed = self._changed()
        touched = changed | self._with_other_records()
        looked_at = self._with_groups(touched)
        self._check_entities(looked_at)
        if any(kind == "event_type" for kind, _ in changed):
            self._check_event_types()
        versions = self._versions(looked_at)
        # what is wrong with its models is told together with this
        if not self.problems:
            catalog = self._catalog(versions, looked_at)
            self._compile(catalog, touched)
        self.stop_if_any()
        return Validated(catalog, tuple(self.warnings), frozenset(changed))

    def _pin_models(self) -> None:
        """Give each model the digest of its bytes: it is a part of the revision."""
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
        if self.before is None:
            return set(self.items)
        before = {
            item.key: item for of_kind in self.before.items.values() for item in of_kind.values()
        }
        changed = set(before.keys() - self.items.keys())
        for key, item in self.items.items():
            other = before.get(key)
            if other is item:
                continue
            if other == item:
                # parsed already, and shared
                self.items[key] = other
            else:
                changed.add(key)
        return changed

    def _with_other_records(self) -> set[Key]:
        """Return the groups and entities whose records differ: others may have appended to them."""
        if self.before is None:
            return set()
        there, before = self.history, self.before
        groups = (n for n, each in before.versions.items() if there.versions.get(n) != each)
        entities = (n for n, each in before.storage.items() if there.storage.get(n) != each)
        return {*(("feature_group", n) for n in groups), *(("entity", n) for n in entities)}

    def _with_groups(self, touched: Collection[Key]) -> set[Key]:
        """Return what has to be looked at: what is touched, and the groups of such entities."""
        entities = {name for kind, name in touched if kind == "entity"}
        groups = {
            key
            for key in self.items
            if key[0] == "feature_group" and key[1].partition(".")[0] in entities
        }
        return {key for key in {*touched, *groups} if key in self.items}

    def _check_entities(self, looked_at: Collection[Key]) -> None:
        for key in self._in_order(looked_at, "entity"):
            each = self.items[key].parsed
            assert isinstance(each, EntityObject)
            names = [one.name for one in each.keys]
            if len(set(names)) < len(names):
                self.refuse(key, f"a key is given twice: {names}", "keys")
            if each.name == RESERVED_ENTITY:
                message = f"'{RESERVED_ENTITY}' is the name of an inferflow's inputs"
                self.refuse(key, message, "name")
            for problem in check_keys(self.history.storage.get(each.name, ()), each.resolved):
                self.refuse(key, problem.message, problem.path)

    def _check_event_types(self) -> None:
        names = {name for kind, name in self.items if kind == "event_type"}
        for one in self._in_order(self.items, "event_type"):
            name = one[1]
            ends = (name[at + 1 :] for at, character in enumerate(name) if character == "_")
            for other in filter(names.__contains__, ends):
                self.refuse(
                    one,
                    f"'{name}' ends like '_{other}': the stored key <user>_{name} would also be "
                    f"that of '{other}' for another user",
                    "name",
                )

    def _versions(self, looked_at: Collection[Key]) -> dict[str, Records[SchemaVersion]]:
        """Return the schema versions of all groups, with the next one where features differ."""
        found: dict[str, Records[SchemaVersion]] = {}
        if self.before is not None:
            names = {name for kind, name in self.items if kind == "feature_group"}
            found = {n: each for n, each in self.before.versions.items() if n in names}
        entities = {
            name: item.parsed.resolved
            for (kind, name), item in self.items.items()
            if kind == "entity" and isinstance(item.parsed, EntityObject)
        }
        for key in self._in_order(looked_at, "feature_group"):
            each = self.items[key].parsed
            assert isinstance(each, FeatureGroupObject)
            checks = GroupChecks(each, entities, self.history)
            versions = checks.run()
            for problem in checks.problems:
                self.refuse(key, problem.message, problem.path)
            if versions is not None:
                found[each.name] = versions
        return found

    def _catalog(
        self, versions: Mapping[str, Records[SchemaVersion]], looked_at: Collection[Key]
    ) -> Catalog:
        storage: dict[str, Records[StorageRecord]] = {}
        if self.before is not None:
            kept = self.before.storage.items()
            storage = {name: each for name, each in kept if ("entity", name) in self.items}
        catalog = Catalog(by_kind(self.items), versions, storage, self.checks.compilers)
        groups = [name for kind, name in looked_at if kind == "feature_group"]
        entities = {name for kind, name in looked_at if kind == "entity"}
        for entity in sorted(entities | {name.partition(".")[0] for name in groups}):
            # what is known of its other groups is in its records
            mine = [catalog.groups[g] for g in sorted(set(groups)) if g.startswith(f"{entity}.")]
            history = self.history.storage.get(entity)
            storage[entity] = extended(history, catalog.entities[entity], mine)
        return catalog

    def _compile(self, catalog: Catalog, touched: set[Key]) -> None:
        """Compile what is touched and what depends on it; look into the models behind it."""
        todo = {key for key in touched if key in self.items}
        if self.before is not None:
            todo |= catalog.share(self.before, touched)
        kinds = list(self.checks.compilers)
        self._compile_kinds(catalog, todo, kinds[:-1])
        self._look_into(catalog, todo)
        # flows build on all others
        self._compile_kinds(catalog, todo, [] if self.problems else kinds[-1:])

    def _compile_kinds(self, catalog: Catalog, keys: Collection[Key], kinds: Sequence[str]) -> None:
        for key in [key for kind in kinds for key in self._in_order(keys, kind)]:
            try:
                catalog.compiled(*key)
            except CatalogError as error:
                self.take(key, error)

    def _look_into(self, catalog: Catalog, keys: Collection[Key]) -> None:
        if self.checks.look_into is None or self.problems:
            return
        for found in self.checks.look_into(catalog, keys):
            problem = self.where(found.key).problem(found.message, found.path)
            (self.problems if found.wrong else self.warnings).append(problem)

    def _in_order(self, keys: Collection[Key], kind: str) -> list[Key]:
        """Return those of a kind, in the order in which they were written."""
        chosen = {key for key in keys if key[0] == kind}
        if len(chosen) <= 1:
            return list(chosen)
        return [key for key in self.items if key in chosen]
