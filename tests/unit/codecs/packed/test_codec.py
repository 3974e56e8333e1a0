"""The packed codec, compared with an independent reader and with a model of mixed batches."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kirana.codecs import Status
from kirana.codecs.packed.codec import MAX_BODY_BYTES
from kirana.codecs.rows import MatrixPlan, Provenance
from kirana.errors import TooLarge, Unknown
from kirana.schema import Feature, FeatureGroup
from tests.unit.codecs.packed_batches import (
    FEW,
    KINDS,
    MIXED,
    NOW,
    NOW_MS,
    NUMBERS,
    PACKED,
    STATUS_OF_KIND,
    Row,
    assert_fill_agrees,
    cells,
    encode,
    group_of,
    histories,
    listed,
    row_of,
    same,
    tables,
    tombstone,
)
from tests.unit.codecs.packed_reader import read_row

pytestmark = pytest.mark.usefixtures("inner_loops")


@FEW
@given(tables())
def test_encoded_rows_decode_to_the_same_values(table: tuple[FeatureGroup, list[Row]]) -> None:
    group, rows = table
    decoded = PACKED.decode(encode(group, rows), group, NOW)
    assert decoded.status.tolist() == [Status.OK] * len(rows)
    assert decoded.event_time_ms.tolist() == [NOW_MS] * len(rows)
    assert not decoded.unknown_versions
    for feature in group.current.features:
        wanted = [listed(row[feature.name], feature.shape) for row in rows]
        assert same(cells(decoded, feature.name), wanted)
        codes = [Provenance.NULL if value is None else Provenance.STORED for value in wanted]
        assert decoded.provenance(feature.name).tolist() == codes
        default = feature.default_array().tolist()
        under_nulls = [
            value
            for value, null in zip(
                decoded.column(feature.name).values.tolist(), wanted, strict=True
            )
            if null is None
        ]
        assert same(under_nulls, [default] * len(under_nulls))


@FEW
@given(tables(), st.integers(0, 2**53))
def test_an_independent_reader_reads_the_bytes(
    table: tuple[FeatureGroup, list[Row]], time: int
) -> None:
    group, rows = table
    specs = [(f.name, f.dtype, f.shape) for f in group.current.features]
    for row, value in zip(rows, encode(group, rows, [time] * len(rows)), strict=True):
        read = read_row(value, specs)
        assert (read.layout, read.flags, read.version, read.expiry_s) == (1, 0, 1, 0)
        assert read.fingerprint == group.current.fingerprint
        assert read.event_time_ms == time
        for feature in group.current.features:
            wanted = row[feature.name]
            if wanted is not None and feature.shape:
                wanted = tuple(wanted)
            assert same(read.values[feature.name], wanted)


@FEW
@given(tables(), st.data())
def test_fill_agrees_with_the_columns(
    table: tuple[FeatureGroup, list[Row]], data: st.DataObject
) -> None:
    group, rows = table
    numeric = [feature for feature in group.current.features if feature.dtype != "string"]
    wanted = data.draw(st.permutations(numeric))
    wanted = wanted[: data.draw(st.integers(0, len(wanted)))]
    values: list[bytes | None] = [*encode(group, rows)]
    for position in data.draw(st.sets(st.integers(0, len(values)), max_size=2)):
        values.insert(position, None)
    assert_fill_agrees(PACKED.decode(values, group, NOW), wanted, group)


def test_fill_writes_only_to_its_columns_of_a_wider_matrix() -> None:
    group = group_of(NUMBERS)
    row = {"clicks": 3, "vector": [1.0, 2.0, 3.0], "stock": None, "price": 2.5}
    decoded = PACKED.decode([*encode(group, [row]), None], group, NOW)
    matrix = np.full((2, 8), 99.0, dtype=np.float32)
    plan = MatrixPlan(group.current, ("price", "stock", "vector", "clicks"))
    decoded.fill(matrix[:, 1:7], plan)
    assert matrix.tolist() == [
        [99.0, 2.5, 1.0, 1.0, 2.0, 3.0, 3.0, 99.0],
        [99.0, 0.0, 1.0, 0.5, 0.5, 0.5, -1.0, 99.0],
    ]


def test_an_empty_batch_has_no_rows() -> None:
    group = group_of(MIXED)
    decoded = PACKED.decode([], group, NOW)
    assert decoded.status.tolist() == []
    assert cells(decoded, "title") == []
    assert encode(group, []) == []


def test_an_unknown_feature_is_refused() -> None:
    decoded = PACKED.decode([], group_of(MIXED), NOW)
    with pytest.raises(Unknown, match=r"did you mean 'product\.g\.clicks'"):
        decoded.column("click")


def test_a_row_that_is_too_large_is_refused() -> None:
    group = group_of([Feature("a", "string"), Feature("b", "string")])
    half = "é" * (MAX_BODY_BYTES // 4)
    with pytest.raises(TooLarge):
        encode(group, [{"a": half + "é", "b": half}])
    with pytest.raises(TooLarge):
        encode(group, [{"a": half + half + "é", "b": ""}])


def test_a_row_of_vectors_that_is_too_large_is_refused() -> None:
    group = group_of([Feature("a", "float64", (MAX_BODY_BYTES // 8,))])
    with pytest.raises(TooLarge):
        encode(group, [{"a": np.zeros(MAX_BODY_BYTES // 8)}])


# expiry and tombstones


def test_without_a_ttl_a_row_never_expires() -> None:
    group = group_of(NUMBERS)
    row = {"clicks": 3, "vector": [1.0, 2.0, 3.0], "stock": False, "price": 2.5}
    decoded = PACKED.decode(encode(group, [row], [0]), group, 2.0**33)
    assert decoded.status.tolist() == [Status.OK]


@pytest.mark.parametrize(
    ("event_time_ms", "expiry_s"), [(NOW_MS, NOW + 2), (NOW_MS + 1, NOW + 3), (NOW_MS - 1, NOW + 2)]
)
def test_a_row_expires_exactly_at_its_expiry_second(event_time_ms: int, expiry_s: int) -> None:
    group = group_of([Feature("a", "int8", default=9)], ttl_ms=2_000)
    values = encode(group, [{"a": 1}], [event_time_ms])
    assert read_row(values[0], [("a", "int8", ())]).expiry_s == expiry_s
    before = PACKED.decode(values, group, expiry_s - 0.001)
    assert (before.status.tolist(), cells(before, "a")) == ([Status.OK], [1])
    after = PACKED.decode(values, group, float(expiry_s))
    assert (after.status.tolist(), cells(after, "a")) == ([Status.EXPIRED], [9])
    assert after.event_time_ms.tolist() == [event_time_ms]
    assert after.provenance("a").tolist() == [Provenance.NO_ROW]


@pytest.mark.parametrize("row_expiry_s", [0, NOW, NOW + 1, 2**32 - 1])
@pytest.mark.parametrize("now_s", [0.5, NOW - 0.5, NOW + 0.5, 2.0**32 - 1, 2.0**32 + 5])
def test_expiry_is_the_same_in_uniform_and_mixed_batches(row_expiry_s: int, now_s: float) -> None:
    group = group_of(NUMBERS, ttl_ms=1000)
    value = encode(group, [dict.fromkeys(f.name for f in NUMBERS)])[0]
    expiring = value[:8] + row_expiry_s.to_bytes(4, "little") + value[12:]
    lasting = value[:8] + bytes(4) + value[12:]
    expired = row_expiry_s != 0 and row_expiry_s <= now_s
    expected = Status.EXPIRED if expired else Status.OK
    assert PACKED.decode([expiring] * 3, group, now_s).status.tolist() == [expected] * 3
    mixed = PACKED.decode([lasting, expiring, lasting], group, now_s)
    assert mixed.status.tolist() == [Status.OK, expected, Status.OK]


def test_two_rows_in_one_value_are_corrupt() -> None:
    """Joined, the values have the same length as two rows."""
    group = group_of(NUMBERS)
    value = encode(group, [dict.fromkeys(f.name for f in NUMBERS)])[0]
    for values in ([value + value, b""], [b"", value + value], [value[:-8], value + value[-8:]]):
        assert PACKED.decode(values, group, NOW).status.tolist() == [Status.CORRUPT] * 2


def test_each_row_has_its_own_expiry() -> None:
    group = group_of([Feature("a", "int8")], ttl_ms=1_000)
    values = encode(group, [{"a": 1}, {"a": 2}, {"a": 3}], [NOW_MS, NOW_MS - 1_000, NOW_MS + 5_000])
    decoded = PACKED.decode(values, group, NOW)
    assert decoded.status.tolist() == [Status.OK, Status.EXPIRED, Status.OK]
    assert cells(decoded, "a") == [1, 0, 3]


def test_a_tombstone_is_a_missing_row() -> None:
    group = group_of(NUMBERS)
    row = {"clicks": 3, "vector": [1.0, 2.0, 3.0], "stock": False, "price": 2.5}
    deleted = tombstone(NOW_MS + 5, NOW + 60)
    for now in (NOW, NOW + 120):
        decoded = PACKED.decode([deleted, *encode(group, [row]), deleted], group, now)
        assert decoded.status.tolist() == [Status.MISSING, Status.OK, Status.MISSING]
        assert cells(decoded, "clicks") == [-1, 3, -1]
    assert PACKED.decode([deleted], group, NOW).status.tolist() == [Status.MISSING]


def test_each_tombstone_has_its_own_event_time() -> None:
    times = np.array([5, 2**53, 0], dtype=np.uint64)
    values = PACKED.tombstones(times, NOW)
    assert [len(value) for value in values] == [24, 24, 24]
    assert [PACKED.write_order(value) for value in values] == [(5, True), (2**53, True), (0, True)]
    assert PACKED.tombstones(times[:0], NOW) == []
    read = read_row(values[1], [])
    assert (read.layout, read.flags, read.expiry_s, read.event_time_ms) == (1, 1, NOW, 2**53)


def test_a_tombstone_is_ordered_after_a_value_of_the_same_time() -> None:
    group = group_of(MIXED[:1])
    (value,) = encode(group, [{"clicks": 1}], [77])
    assert PACKED.write_order(value) == (77, False)
    assert PACKED.write_order(tombstone(77, 0)) == (77, True)
    assert PACKED.write_order(value) < PACKED.write_order(tombstone(77, 0))


@FEW
@given(st.binary(max_size=40))
def test_any_bytes_have_a_write_order(value: bytes) -> None:
    time, deleted = PACKED.write_order(value)
    assert time >= 0
    assert deleted in (False, True)


# schema versions


def test_a_row_of_an_older_version_has_defaults_for_the_features_it_lacks() -> None:
    old = (Feature("a", "int32"), Feature("b", "float32", default=5.0))
    new = (
        Feature("c", "string", default="new"),
        Feature("b", "float32", default=6.0),
        Feature("d", "bool", default=True),
        Feature("v", "int16", (2,), default=(8, 9)),
    )
    group = group_of(old, new)
    values = [
        *encode(group, [{"a": 1, "b": 1.5}], version=1),
        *encode(group, [{"c": "x", "b": 2.5, "d": False, "v": [1, 2]}], version=2),
        *encode(group, [{"a": 1, "b": None}], version=1),
        None,
    ]
    rows = PACKED.decode(values, group, NOW)
    assert rows.status.tolist() == [Status.OK, Status.OK, Status.OK, Status.MISSING]
    assert rows.column("b").values.tolist() == [1.5, 2.5, 6.0, 6.0]
    assert cells(rows, "c") == ["new", "x", "new", "new"]
    assert cells(rows, "d") == [True, False, True, True]
    assert cells(rows, "v") == [[8, 9], [1, 2], [8, 9], [8, 9]]
    not_in_version, stored, no_row = Provenance.NOT_IN_VERSION, Provenance.STORED, Provenance.NO_ROW
    assert rows.provenance("c").tolist() == [not_in_version, stored, not_in_version, no_row]
    assert rows.provenance("b").tolist() == [stored, stored, Provenance.NULL, no_row]
    assert_fill_agrees(rows, [new[1], new[2], new[3]], group)
    with pytest.raises(Unknown):
        rows.column("a")


@FEW
@given(histories(), st.data())
def test_each_row_of_a_mixed_batch_gets_its_own_status_and_values(
    group: FeatureGroup, data: st.DataObject
) -> None:
    foreign = replace(
        group, versions=tuple(replace(version, group="other.g") for version in group.versions)
    )
    values: list[bytes | None] = []
    kinds, numbers, rows = [], [], []
    for kind in data.draw(st.lists(st.sampled_from(KINDS), max_size=8)):
        number = data.draw(st.integers(1, len(group.versions)))
        row = data.draw(row_of(group.versions[number - 1].features))
        time = NOW_MS - 1_000 if kind == "expired" else NOW_MS
        (value,) = encode(foreign if kind == "foreign" else group, [row], [time], number)
        if kind == "unknown":
            value = value[:2] + (len(group.versions) + 1).to_bytes(2, "little") + value[4:]
        elif kind == "cut":
            value = value[: data.draw(st.integers(0, len(value) - 1))]
        elif kind == "deleted":
            value = tombstone(NOW_MS, NOW + 9)
        values.append(None if kind == "missing" else value)
        kinds.append(kind)
        numbers.append(number)
        rows.append(row)
    decoded = PACKED.decode(values, group, NOW)
    assert decoded.status.tolist() == [STATUS_OF_KIND[kind] for kind in kinds]
    unknown = {len(group.versions) + 1} if "unknown" in kinds else set()
    assert decoded.unknown_versions == unknown
    for feature in group.current.features:
        default = feature.default_array()
        column = decoded.column(feature.name)
        codes = decoded.provenance(feature.name).tolist()
        for position, (kind, number, row) in enumerate(zip(kinds, numbers, rows, strict=True)):
            expected = default.tolist()
            code = Provenance.NO_ROW
            if kind == "ok":
                code = Provenance.NOT_IN_VERSION
                if feature.name in group.versions[number - 1].index:
                    stored = row[feature.name]
                    code = Provenance.NULL if stored is None else Provenance.STORED
                    expected = expected if stored is None else listed(stored, feature.shape)
            assert codes[position] == code
            assert column.nulls is None or column.nulls[position] == (code == Provenance.NULL)
            assert same(column.values[position : position + 1].tolist(), [expected])
    assert_fill_agrees(decoded, [f for f in group.current.features if f.dtype != "string"], group)


@pytest.mark.parametrize("number", [0, 2, 255, 65535])
def test_an_unknown_version_number_is_reported(number: int) -> None:
    group = group_of([Feature("a", "int8", default=9)])
    good, other = encode(group, [{"a": 1}, {"a": 2}])
    unknown = other[:2] + number.to_bytes(2, "little") + other[4:]
    decoded = PACKED.decode([good, unknown, None], group, NOW)
    assert decoded.status.tolist() == [Status.OK, Status.CORRUPT, Status.MISSING]
    assert decoded.unknown_versions == {number}
    assert cells(decoded, "a") == [1, 9, 9]
    assert PACKED.decode([unknown], group, NOW).unknown_versions == {number}


def test_a_row_of_another_group_is_corrupt() -> None:
    here, there = group_of(MIXED), group_of(MIXED, name="product.h")
    row = {"clicks": 1, "title": "t", "vector": [1.0, 2.0, 3.0], "stock": False, "price": 2.5}
    decoded = PACKED.decode([*encode(there, [row]), *encode(here, [row])], here, NOW)
    assert decoded.status.tolist() == [Status.CORRUPT, Status.OK]
    assert cells(decoded, "title") == ["?", "t"]
