"""What can be wrong with a feature group: its features, and what its stored rows forbid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kirana.catalog.feature_objects import feature_of
from kirana.catalog.history import History
from kirana.catalog.objects import FeatureGroupObject
from kirana.catalog.records import Records
from kirana.catalog.schema_records import shared_version, version_records
from kirana.catalog.storage_records import check_codec
from kirana.codecs import CODECS
from kirana.codecs.packed.codec import MAX_BODY_BYTES
from kirana.codecs.packed.layout import Layout
from kirana.errors import Problem, did_you_mean
from kirana.schema import EVENT_TIME, NUMERIC, Entity, Feature, SchemaVersion

MAX_VERSIONS = 0xFFFF


class GroupChecks:
    """Collects `problems`, with paths in the object."""

    def __init__(
        self, group: FeatureGroupObject, entities: Mapping[str, Entity], history: History
    ) -> None:
        self.problems: list[Problem] = []
        self._group = group
        self._entities = entities
        self._history = history

    def refuse(self, message: str, path: str) -> None:
        self.problems.append(Problem(message, path=path))

    def run(self) -> Records[SchemaVersion] | None:
        """Return its schema versions, with the next one if its features differ from the last.

        None if it is no group that could have any.
        """
        group = self._group
        entity = self._entities.get(group.entity)
        if entity is None:
            hint = did_you_mean(group.entity, self._entities)
            self.refuse(f"unknown entity '{group.entity}': {hint}", "name")
            return None
        if group.codec not in CODECS:
            hint = did_you_mean(group.codec, CODECS)
            self.refuse(f"unknown codec '{group.codec}': {hint}", "codec")
            return None
        stored = self._history.storage.get(entity.name, ())
        self.problems += check_codec(stored, group.name, group.codec)
        before = len(self.problems)
        features = self._features(entity)
        if len(self.problems) > before:
            return None
        stride = Layout(SchemaVersion(group.name, 1, features)).stride
        if stride > MAX_BODY_BYTES:
            message = f"a row takes {stride} bytes, the limit is {MAX_BODY_BYTES}"
            self.refuse(message, "features")
            return None
        versions = self._versions(features)
        if group.checksum != "none" and group.codec != "packed":
            self.refuse(f"the codec '{group.codec}' has no checksum", "checksum")
        return versions

    def _features(self, entity: Entity) -> tuple[Feature, ...]:
        features: dict[str, Feature] = {}
        # of a file of rows, one column would be two things
        reserved = {key.name: f"is a key of '{entity.name}'" for key in entity.keys}
        reserved[EVENT_TIME] = "is the time of a row"
        for at, each in enumerate(self._group.features):
            path = f"features[{at}]"
            if each.name in reserved:
                message = f"'{each.name}' {reserved[each.name]}: a feature needs another name"
                self.refuse(message, f"{path}.name")
            if each.name in features:
                self.refuse(f"'{each.name}' is given twice", f"{path}.name")
            if each.shape and each.dtype not in NUMERIC:
                self.refuse(f"a vector of {each.dtype} can't be stored", f"{path}.shape")
                continue
            try:
                features[each.name] = feature_of(each)
            except ValueError as error:
                self.refuse(str(error), f"{path}.default")
        self._check_aliases()
        return tuple(features.values())

    def _check_aliases(self) -> None:
        taken = {each.name for each in self._group.features}
        for at, each in enumerate(self._group.features):
            for number, alias in enumerate(each.aliases):
                if alias in taken:
                    path = f"features[{at}].aliases[{number}]"
                    again = alias == each.name or alias in each.aliases[:number]
                    what = "is given twice" if again else "is the name of another feature"
                    self.refuse(f"'{alias}' {what}", path)
                taken.add(alias)

    def _versions(self, features: tuple[Feature, ...]) -> Records[SchemaVersion]:
        name = self._group.name
        records = self._history.versions.get(name)
        history = list(records or ())
        if records and history[-1].features == features:
            return records
        for version in history:
            for at, feature in enumerate(features):
                names = [n for n in (feature.name, *feature.aliases) if n in version.index]
                if len(names) > 1:
                    self.refuse(
                        f"schema version {version.number} has both {names}: a feature can't "
                        "have been both",
                        f"features[{at}].aliases",
                    )
                for old in map(version.feature, names):
                    if (old.dtype, old.shape) != (feature.dtype, feature.shape):
                        self.refuse(
                            f"'{old.name}' was {old.dtype}{list(old.shape) or ''} in schema "
                            f"version {version.number}: rows with it are still stored, so a "
                            "feature of another dtype or shape needs another name",
                            f"features[{at}]",
                        )
        self._check_renamed(history, features)
        if len(history) >= MAX_VERSIONS:
            self.refuse(f"'{name}' has used all {MAX_VERSIONS} schema versions", "")
        return version_records([*history, shared_version(name, len(history) + 1, features)])

    def _check_renamed(
        self, history: Sequence[SchemaVersion], features: tuple[Feature, ...]
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
                            f"'{feature.name}' was called '{lost[0]}' before schema version "
                            f"{version.number}: keep that among its aliases, or its old rows are "
                            "read as defaults",
                            f"features[{at}].aliases",
                        )
                    taken = [alias for alias in renamed.aliases if alias in names]
                    if renamed.name not in names and taken and at not in refused:
                        refused.add(at)
                        self.refuse(
                            f"'{taken[0]}' was renamed to '{renamed.name}' in schema version "
                            f"{version.number}: another feature needs another name",
                            f"features[{at}].name",
                        )
