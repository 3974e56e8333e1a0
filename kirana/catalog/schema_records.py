"""Schema versions as plain values, as they are in version files and in published revisions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from kirana.catalog.feature_objects import feature_of
from kirana.catalog.objects import FeatureObject
from kirana.catalog.records import Records
from kirana.schema import Feature, SchemaVersion, spelled


def features_record(version: SchemaVersion) -> list[dict[str, Any]]:
    """Return the features of a schema version as plain values, for YAML or JSON."""
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
    """Return a schema version, given the plain values of its features.

    Raise `ValueError` or `TypeError` if they are not valid.
    """
    parsed = tuple(feature_of(FeatureObject.model_validate(dict(feature))) for feature in features)
    return shared_version(group, number, parsed)


@lru_cache(maxsize=4_096)
def shared_version(group: str, number: int, features: tuple[Feature, ...]) -> SchemaVersion:
    """Return a schema version. Equal arguments give the same object while it is cached.

    Each read looks schema versions up in dicts. A dict finds the same object by its identity,
    without a comparison of all features.
    """
    return SchemaVersion(group, number, features)


def version_records(versions: Sequence[SchemaVersion]) -> Records[SchemaVersion]:
    """Return schema versions of a group as `Records`."""
    return Records.of(versions, features_record)


def written_versions(group: str, raw: bytes) -> Records[SchemaVersion]:
    """Return a group's schema versions in the JSON list `raw`, which is parsed on first use."""
    return Records.written(
        raw, lambda number, features: parse_version(group, number, features), features_record
    )
