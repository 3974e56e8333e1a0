"""Rows with pinned bytes: every version of Kirana must write and read the same bytes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kirana.codecs import CODECS, Codec, Column, Status
from kirana.schema import NUMERIC, Array, Entity, Feature, FeatureGroup, Key, SchemaVersion
from tests.unit.codecs.packed_reader import read_row
from tests.unit.codecs.text_reader import read_text

FOLDER = Path(__file__).parent / "golden"
GOLDEN = json.loads((FOLDER / "packed.json").read_text())
TEXTS = json.loads((FOLDER / "text.json").read_text())
PACKED, TEXT = CODECS["packed"], CODECS["text"]
NON_FINITE = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}
each_codec = pytest.mark.parametrize("codec", [PACKED, TEXT], ids=["packed", "text"])
each_row = pytest.mark.parametrize("row", GOLDEN["rows"], ids=[r["name"] for r in GOLDEN["rows"]])


def golden_group() -> FeatureGroup:
    """Return the group of the pinned rows, with its schema versions."""
    versions = tuple(
        SchemaVersion(
            GOLDEN["group"],
            number,
            tuple(
                Feature(feature["name"], feature["dtype"], tuple(feature.get("shape", ())))
                for feature in version["features"]
            ),
        )
        for number, version in enumerate(GOLDEN["versions"], start=1)
    )
    product = Entity("product", (Key("product_id"),))
    return FeatureGroup(GOLDEN["group"], product, GOLDEN["ttl_ms"], "packed", versions)


def value_of(feature: Feature, given: Any) -> Any:
    """Return the value of a feature that the JSON file gives as `given`."""
    if feature.dtype in ("string", "bool"):
        return given
    if isinstance(given, list):
        return [value_of(feature, element) for element in given]
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


def encode(group: FeatureGroup, row: dict[str, Any], codec: Codec = PACKED) -> bytes:
    time = np.array([row["event_time_ms"]], dtype=np.uint64)
    version = group.version(row["version"])
    columns = {f.name: column_of(f, row["values"][f.name]) for f in version.features}
    (value,) = codec.encode(group, version, columns, time)
    return value


def stored(row: dict[str, Any], codec: Codec) -> bytes:
    """Return the pinned bytes of a row."""
    if codec is TEXT:
        return str(TEXTS["rows"][row["name"]]).encode()
    return bytes.fromhex("".join(row["hex"]))


def test_the_fingerprints_are_pinned() -> None:
    pinned = [int(version["fingerprint"], 16) for version in GOLDEN["versions"]]
    assert [version.fingerprint for version in golden_group().versions] == pinned


@each_row
@each_codec
def test_a_row_is_written_as_its_pinned_bytes(row: dict[str, Any], codec: Codec) -> None:
    assert encode(golden_group(), row, codec) == stored(row, codec)


@pytest.mark.usefixtures("inner_loops")
@each_row
@each_codec
def test_a_pinned_row_is_read_as_its_values(row: dict[str, Any], codec: Codec) -> None:
    pinned = golden_group()
    group = FeatureGroup(
        pinned.name, pinned.entity, pinned.ttl_ms, codec.name, pinned.versions[: row["version"]]
    )
    rows = codec.decode([stored(row, codec)], group, row["expiry_s"] - 1)
    assert rows.status.tolist() == [Status.OK]
    assert rows.event_time_ms.tolist() == [row["event_time_ms"]]
    for feature in group.current.features:
        column = rows.column(feature.name)
        given = row["values"][feature.name]
        if given is None:
            assert column.nulls is not None
            assert column.nulls.tolist() == [True]
        else:
            assert repr(column.values.tolist()) == repr([value_of(feature, given)])


@each_row
@each_codec
def test_the_independent_reader_agrees_with_the_pinned_row(
    row: dict[str, Any], codec: Codec
) -> None:
    features = golden_group().version(row["version"]).features
    specs = [(feature.name, feature.dtype, feature.shape) for feature in features]
    read = (read_text if codec is TEXT else read_row)(stored(row, codec), specs)
    assert read.version == row["version"]
    assert read.expiry_s == row["expiry_s"]
    for feature in features:
        expected = value_of(feature, row["values"][feature.name])
        assert repr(read.values[feature.name]) == repr(
            tuple(expected) if isinstance(expected, list) else expected
        )


def test_a_tombstone_is_written_as_its_pinned_bytes() -> None:
    pinned = GOLDEN["tombstone"]
    times = np.array([pinned["event_time_ms"]], dtype=np.uint64)
    (value,) = PACKED.tombstones(times, pinned["expiry_s"])
    assert value.hex() == "".join(pinned["hex"])
    assert TEXT.tombstones(times, pinned["expiry_s"]) == [TEXTS["tombstone"].encode()]


def test_the_independent_reader_reads_shortened_and_deleted_rows() -> None:
    specs = [("a", "int8", ()), ("b", "string", ())]
    assert read_text(b"1,x\\,y", specs).values == {"a": 1, "b": "x,y"}
    short = read_text(b"1,x;9", specs)
    assert (short.expiry_s, short.version, short.event_time_ms) == (9, 1, 0)
    deleted = read_text(TEXTS["tombstone"].encode(), specs)
    assert (deleted.version, deleted.values) == (0, {})
