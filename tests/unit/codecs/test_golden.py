"""Rows whose bytes are pinned: what was written once must be written and read for ever."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kirana.codecs import CODECS, Column, Status
from kirana.schema import NUMERIC, Array, Entity, Feature, FeatureGroup, Key, SchemaVersion
from tests.unit.codecs.packed_reader import read_row

GOLDEN = json.loads((Path(__file__).parent / "golden" / "packed.json").read_text())
PACKED = CODECS["packed"]
NON_FINITE = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}
each_row = pytest.mark.parametrize("row", GOLDEN["rows"], ids=[r["name"] for r in GOLDEN["rows"]])


def golden_group() -> FeatureGroup:
    versions = tuple(
        SchemaVersion(
            GOLDEN["group"],
            number,
            tuple(
                Feature(each["name"], each["dtype"], tuple(each.get("shape", ())))
                for each in version["features"]
            ),
        )
        for number, version in enumerate(GOLDEN["versions"], start=1)
    )
    product = Entity("product", (Key("product_id"),))
    return FeatureGroup(GOLDEN["group"], product, GOLDEN["ttl_ms"], "packed", versions)


def value_of(feature: Feature, given: Any) -> Any:
    if feature.dtype in ("string", "bool"):
        return given
    if isinstance(given, list):
        return [value_of(feature, each) for each in given]
    return NON_FINITE[given] if isinstance(given, str) else given


def column_of(feature: Feature, given: Any) -> Column:
    nulls = np.array([given is None]) if given is None else None
    values: Array
    if feature.dtype == "string":
        values = np.array([given or ""], dtype=object)
    elif feature.dtype == "bool":
        values = np.array([bool(given)])
    else:
        values = np.zeros((1, *feature.shape), dtype=NUMERIC[feature.dtype])
        if given is not None:
            values[0] = value_of(feature, given)
    return Column(values, nulls)


def encode(group: FeatureGroup, row: dict[str, Any]) -> bytes:
    time = np.array([row["event_time_ms"]], dtype=np.uint64)
    version = group.version(row["version"])
    columns = {f.name: column_of(f, row["values"][f.name]) for f in version.features}
    (value,) = PACKED.encode(group, version, columns, time)
    return value


def test_the_fingerprints_are_pinned() -> None:
    pinned = [int(version["fingerprint"], 16) for version in GOLDEN["versions"]]
    assert [version.fingerprint for version in golden_group().versions] == pinned


@each_row
def test_a_row_is_written_as_it_always_was(row: dict[str, Any]) -> None:
    assert encode(golden_group(), row).hex() == "".join(row["hex"])


@each_row
def test_a_pinned_row_is_read_as_it_always_was(row: dict[str, Any]) -> None:
    pinned = golden_group()
    group = FeatureGroup(
        pinned.name, pinned.entity, pinned.ttl_ms, "packed", pinned.versions[: row["version"]]
    )
    rows = PACKED.decode([bytes.fromhex("".join(row["hex"]))], group, row["expiry_s"] - 1)
    assert rows.status.tolist() == [Status.OK]
    assert rows.event_time_ms.tolist() == [row["event_time_ms"]]
    for feature in group.current.features:
        found = rows.column(feature.name)
        given = row["values"][feature.name]
        if given is None:
            assert found.nulls is not None
            assert found.nulls.tolist() == [True]
        else:
            assert repr(found.values.tolist()) == repr([value_of(feature, given)])


@each_row
def test_the_independent_reader_agrees_with_the_pinned_row(row: dict[str, Any]) -> None:
    features = golden_group().version(row["version"]).features
    specs = [(each.name, each.dtype, each.shape) for each in features]
    read = read_row(bytes.fromhex("".join(row["hex"])), specs)
    assert read.version == row["version"]
    assert read.expiry_s == row["expiry_s"]
    for feature in features:
        wanted = value_of(feature, row["values"][feature.name])
        assert repr(read.values[feature.name]) == repr(
            tuple(wanted) if isinstance(wanted, list) else wanted
        )


def test_a_tombstone_is_written_as_it_always_was() -> None:
    pinned = GOLDEN["tombstone"]
    times = np.array([pinned["event_time_ms"]], dtype=np.uint64)
    (value,) = PACKED.tombstones(times, pinned["expiry_s"])
    assert value.hex() == "".join(pinned["hex"])
