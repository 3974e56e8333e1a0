"""The checks of a feature group: its features, and changes that stored rows do not allow."""

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
"""The most schema versions of a group. A packed row stores the number in 16 bits."""


class GroupChecks:
    """The checks of one feature group. They collect `problems`, with paths in the object."""

    def __init__(
        self, group: FeatureGroupObject, entities: Mapping[str, Entity], history: History
    ) -> None:
        self.problems: list[Problem] = []
        self._group = group
        self._entities = entities
        self._history = history

    def refuse(self, message: str, path: str) -> None:
        """Add a problem at `path`."""
        self.problems.append(Problem(message, path=path))

    def run(self) -> Records[SchemaVersion] | None:
        """Run the checks and return the schema versions, with a new one if the features changed.

        Return None if problems prevent a schema version. There may be problems even if the result
        is not None.
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
        problems_before = len(self.problems)
        features = self._features(entity)
        if len(self.problems) > problems_before:
            return None
        stride = Layout(SchemaVersion(group.name, 1, features)).stride
        if stride > MAX_BODY_BYTES:
            message = f"a row has at least {stride} bytes, the limit is {MAX_BODY_BYTES}"
            self.refuse(message, "features")
            return None
        versions = self._versions(features)
        if group.checksum != "none" and group.codec != "packed":
            self.refuse(f"the codec '{group.codec}' has no checksum", "checksum")
        return versions

    def _features(self, entity: Entity) -> tuple[Feature, ...]:
        """Check the features, and return them. Leave out those that can't be converted."""
        features: dict[str, Feature] = {}
        # A file of rows has columns for keys and event times, so features need other names.
        reserved = {key.name: f"is a key of '{entity.name}'" for key in entity.keys}
        reserved[EVENT_TIME] = "is reserved for the event time of a row"
        for index, declared in enumerate(self._group.features):
            path = f"features[{index}]"
            if declared.name in reserved:
                message = f"'{declared.name}' {reserved[declared.name]}: choose another name"
                self.refuse(message, f"{path}.name")
            if declared.name in features:
                self.refuse(f"'{declared.name}' is given twice", f"{path}.name")
            if declared.shape and declared.dtype not in NUMERIC:
                self.refuse(f"a vector of {declared.dtype} can't be stored", f"{path}.shape")
                continue
            try:
                features[declared.name] = feature_of(declared)
            except ValueError as error:
                self.refuse(str(error), f"{path}.default")
        self._check_aliases()
        return tuple(features.values())

    def _check_aliases(self) -> None:
        """Refuse an alias that is also another alias or the name of a feature."""
        used_names = {feature.name for feature in self._group.features}
        for index, feature in enumerate(self._group.features):
            for alias_index, alias in enumerate(feature.aliases):
                if alias in used_names:
                    path = f"features[{index}].aliases[{alias_index}]"
                    is_repeated = alias == feature.name or alias in feature.aliases[:alias_index]
                    reason = "is given twice" if is_repeated else "is a name of another feature"
                    self.refuse(f"'{alias}' {reason}", path)
                used_names.add(alias)

    def _versions(self, features: tuple[Feature, ...]) -> Records[SchemaVersion]:
        """Return the schema versions, with a new one if the features differ from the last one."""
        name = self._group.name
        records = self._history.versions.get(name)
        history = list(records or ())
        if records and history[-1].features == features:
            return records
        for version in history:
            for index, feature in enumerate(features):
                names = [n for n in (feature.name, *feature.aliases) if n in version.index]
                if len(names) > 1:
                    self.refuse(
                        f"'{names[0]}' and '{names[1]}' are two features in schema version "
                        f"{version.number}: one feature can't replace both",
                        f"features[{index}].aliases",
                    )
                for old in map(version.feature, names):
                    if (old.dtype, old.shape) != (feature.dtype, feature.shape):
                        self.refuse(
                            f"'{old.name}' was {old.dtype}{list(old.shape) or ''} in schema "
                            f"version {version.number}: rows with it may still be stored, so a "
                            "feature of another dtype or shape needs another name",
                            f"features[{index}]",
                        )
        self._check_renamed(history, features)
        if len(history) >= MAX_VERSIONS:
            self.refuse(f"'{name}' has used all {MAX_VERSIONS} schema versions", "")
        return version_records([*history, shared_version(name, len(history) + 1, features)])

    def _check_renamed(
        self, history: Sequence[SchemaVersion], features: tuple[Feature, ...]
    ) -> None:
        """Refuse a feature that drops one of its old names, or takes one of another feature.

        Rows that were written with the old name may still be stored.
        """
        refused_indexes: set[int] = set()
        for version in history:
            for renamed in (old_feature for old_feature in version.features if old_feature.aliases):
                for index, feature in enumerate(features):
                    names = (feature.name, *feature.aliases)
                    lost = [alias for alias in renamed.aliases if alias not in names]
                    if renamed.name in names and lost and index not in refused_indexes:
                        refused_indexes.add(index)
                        self.refuse(
                            f"'{feature.name}' was called '{lost[0]}' before schema version "
                            f"{version.number}: keep '{lost[0]}' in its aliases, or its old rows "
                            "will read as defaults",
                            f"features[{index}].aliases",
                        )
                    taken = [alias for alias in renamed.aliases if alias in names]
                    if renamed.name not in names and taken and index not in refused_indexes:
                        refused_indexes.add(index)
                        self.refuse(
                            f"'{taken[0]}' was renamed to '{renamed.name}' in schema version "
                            f"{version.number}: give the new feature another name",
                            f"features[{index}].name",
                        )
