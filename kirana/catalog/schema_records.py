"""Schema versions as records: the same in version files and in published revisions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from kirana.catalog.feature_objects import feature_of
from kirana.catalog.objects import FeatureObject
from kirana.catalog.records import Records
from kirana.schema import Feature, SchemaVersion, spelled


def features_record(version: SchemaVersion) -> list[dict[str, Any]]:
    """Return a version's features as they are written down, in YAML or JSON."""
    records = []
    for feature in version.features:
        record: dict[str, Any] = {"name": feature.name, "dtype": feature.dtype}
        if feature.shape:
            record["shape"] = list(feature.shape)
        if feature.default is not None:
            default = feature.default
            record["default"] = spelled(list(default) if isinstance(default, tuple) else default)
        if feature.aliases:
            record["aliases"] = list(feature.aliases)
        records.append(record)
    return records


def parse_version(group: str, number: int, features: Sequence[Mapping[str, Any]]) -> SchemaVersion:
    """Read what `features_record` made. Raises `ValueError` for what it can't have made."""
    parsed = tuple(feature_of(FeatureObject.model_validate(dict(each))) for each in features)
    return shared_version(group, number, parsed)


@lru_cache(maxsize=4_096)
def shared_version(group: str, number: int, features: tuple[Feature, ...]) -> SchemaVersion:
    """One object a version in all revisions: what is looked up by it is found by identity, and
    not by comparing all of its features on every read.
    """
    return SchemaVersion(group, number, features)


def version_records(versions: Sequence[SchemaVersion]) -> Records[SchemaVersion]:
    """Return the schema versions of a group, in order, as records."""
    return Records.of(versions, features_record)


def written_versions(group: str, raw: bytes) -> Records[SchemaVersion]:
    """Return the schema versions of a group as they were written down."""
    return Records.written(raw, lambda at, each: parse_version(group, at, each), features_record)
