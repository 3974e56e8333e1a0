"""The packed codec against an independent reader and a model of what batches mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kirana.codecs import CODECS, Column, Rows, Status
from kirana.codecs.packed import MAX_BODY_BYTES
from kirana.codecs.rows import MatrixPlan, Provenance
from kirana.errors import TooLarge, Unknown
from kirana.schema import DTYPES, NUMERIC, Array, Entity, Feature, FeatureGroup, Key, SchemaVersion
from tests.unit.codecs.packed_reader import read_row

PACKED = CODECS["packed"]
PRODUCT = Entity("product", (Key("product_id"),))
FEW = settings(deadline=None, max_examples=40)
NOW = 1_700_000_000
NOW_MS = NOW * 1000

MIXED = (
    Feature("clicks", "int32", default=-1),
    Feature("title", "string", default="?"),
    Feature("vector", "float16", (3,), default=0.5),
    Feature("stock", "bool", default=True),
    Feature("price", "float64"),
)
NUMBERS = tuple(feature for feature in MIXED if feature.dtype != "string")


def group_of(
    *versions: Sequence[Feature], ttl_ms: int = 0, name: str = "product.g"
) -> FeatureGroup:
    numbered = tuple(SchemaVersion(name, at, tuple(v)) for at, v in enumerate(versions, start=1))
    return FeatureGroup(name, PRODUCT, ttl_ms, "packed", numbered)


def column(feature: Feature, values: Sequence[Any]) -> Column:
    """None is null."""
    nulls = np.array([value is None for value in values], dtype=np.bool_)
    out: Array
    if feature.dtype == "string":
        out = np.array([value or "" for value in values], dtype=object)
    elif feature.dtype == "bool":
        out = np.array([bool(value) for value in values], dtype=np.bool_)
    else:
        out = np.zeros((len(values), *feature.shape), dtype=NUMERIC[feature.dtype])
        for at, value in enumerate(values):
            if value is not None:
                out[at] = np.array(value, dtype=out.dtype).reshape(feature.shape)
    return Column(out, nulls if nulls.any() else None)


Row = Mapping[str, Any]


def tombstone(event_time_ms: int, expiry_s: int) -> bytes:
    (value,) = PACKED.tombstones(np.array([event_time_ms], dtype=np.uint64), expiry_s)
    return value


def encode(
    group: FeatureGroup, rows: Sequence[Row], times: Sequence[int] | None = None, version: int = 0
) -> list[bytes]:
    schema = group.versions[version - 1]
    columns = {f.name: column(f, [row[f.name] for row in rows]) for f in schema.features}
    event_times = np.array([NOW_MS] * len(rows) if times is None else times, dtype=np.uint64)
    return PACKED.encode(group, schema, columns, event_times)


def cells(rows: Rows, name: str) -> list[Any]:
    """What a column holds, None where null."""
    found = rows.column(name)
    nulls = [False] * len(found.values) if found.nulls is None else found.nulls.tolist()
    return [None if null else v for v, null in zip(found.values.tolist(), nulls, strict=True)]


def same(one: Any, other: Any) -> bool:
    """Equal, with NaN equal to NaN and -0.0 not to 0.0."""
    return repr(one) == repr(other)


def listed(value: Any, shape: tuple[int, ...]) -> Any:
    return (
        value
        if value is None or not shape
        else np.array(value, dtype=object).reshape(shape).tolist()
    )


# what a schema allows


@st.composite
def features(draw: st.DrawFn, name: str) -> Feature:
    dtype = draw(st.sampled_from(DTYPES))
    shape = draw(st.sampled_from([(), (), (1,), (3,), (2, 2)])) if dtype in NUMERIC else ()
    defaults: dict[str, Any] = {"string": "none", "bool": True}
    default = defaults.get(dtype, 7)
    return Feature(name, dtype, shape, draw(st.sampled_from([None, default])))


def elements(feature: Feature) -> st.SearchStrategy[Any]:
    if feature.dtype == "string":
        return st.text(max_size=8)
    if feature.dtype == "bool":
        return st.booleans()
    dtype = NUMERIC[feature.dtype]
    scalar: st.SearchStrategy[Any]
    if dtype.kind == "f":
        scalar = st.floats(width=dtype.itemsize * 8)  # type: ignore[arg-type]
    else:
        scalar = st.integers(int(np.iinfo(dtype).min), int(np.iinfo(dtype).max))
    if not feature.shape:
        return scalar
    return st.lists(scalar, min_size=feature.size, max_size=feature.size)


def row_of(version: Sequence[Feature]) -> st.SearchStrategy[Row]:
    return st.fixed_dictionaries({f.name: st.none() | elements(f) for f in version})


@st.composite
def schemas(draw: st.DrawFn) -> tuple[Feature, ...]:
    count = draw(st.integers(1, 12))
    return tuple(draw(features(f"f{at}")) for at in range(count))


@st.composite
def tables(draw: st.DrawFn) -> tuple[FeatureGroup, list[Row]]:
    schema = draw(schemas())
    return group_of(schema), draw(st.lists(row_of(schema), min_size=1, max_size=5))


@FEW
@given(tables())
def test_what_was_encoded_is_decoded(table: tuple[FeatureGroup, list[Row]]) -> None:
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
    for at in data.draw(st.sets(st.integers(0, len(values)), max_size=2)):
        values.insert(at, None)
    assert_fill_agrees(PACKED.decode(values, group, NOW), wanted, group)


def assert_fill_agrees(rows: Rows, wanted: Sequence[Feature], group: FeatureGroup) -> None:
    count = len(rows.status)
    out = np.full((count, sum(feature.size for feature in wanted)), 12345.0, dtype=np.float32)
    blocks = [np.empty((count, 0), dtype=np.float32)]
    with np.errstate(over="ignore"):
        if wanted:
            rows.fill(out, MatrixPlan(group.current, tuple(each.name for each in wanted)))
        for each in wanted:
            block = rows.column(each.name).values.reshape(count, each.size)
            blocks.append(block.astype(np.float32))
    np.testing.assert_array_equal(out, np.concatenate(blocks, axis=1))


def test_fill_writes_only_its_part_of_a_wider_matrix() -> None:
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


def test_an_empty_batch_is_no_rows() -> None:
    group = group_of(MIXED)
    decoded = PACKED.decode([], group, NOW)
    assert decoded.status.tolist() == []
    assert cells(decoded, "title") == []
    assert encode(group, []) == []


def test_a_name_that_the_group_lacks_is_unknown() -> None:
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
def test_a_row_expires_at_its_second_exactly(event_time_ms: int, expiry_s: int) -> None:
    group = group_of([Feature("a", "int8", default=9)], ttl_ms=2_000)
    values = encode(group, [{"a": 1}], [event_time_ms])
    assert read_row(values[0], [("a", "int8", ())]).expiry_s == expiry_s
    before = PACKED.decode(values, group, expiry_s - 0.001)
    assert (before.status.tolist(), cells(before, "a")) == ([Status.OK], [1])
    at = PACKED.decode(values, group, float(expiry_s))
    assert (at.status.tolist(), cells(at, "a")) == ([Status.EXPIRED], [9])
    assert at.event_time_ms.tolist() == [event_time_ms]
    assert at.provenance("a").tolist() == [Provenance.NO_ROW]


@pytest.mark.parametrize("ends_s", [0, NOW, NOW + 1, 2**32 - 1])
@pytest.mark.parametrize("now_s", [0.5, NOW - 0.5, NOW + 0.5, 2.0**32 - 1, 2.0**32 + 5])
def test_a_batch_tells_the_time_as_a_row_does(ends_s: int, now_s: float) -> None:
    group = group_of(NUMBERS, ttl_ms=1000)
    value = encode(group, [dict.fromkeys(f.name for f in NUMBERS)])[0]
    ending = value[:8] + ends_s.to_bytes(4, "little") + value[12:]
    unending = value[:8] + bytes(4) + value[12:]
    expired = ends_s != 0 and ends_s <= now_s
    expected = Status.EXPIRED if expired else Status.OK
    assert PACKED.decode([ending] * 3, group, now_s).status.tolist() == [expected] * 3
    mixed = PACKED.decode([unending, ending, unending], group, now_s)
    assert mixed.status.tolist() == [Status.OK, expected, Status.OK]


def test_two_rows_in_one_value_are_not_the_next_key_s() -> None:
    group = group_of(NUMBERS)
    value = encode(group, [dict.fromkeys(f.name for f in NUMBERS)])[0]
    for values in ([value + value, b""], [b"", value + value], [value[:-8], value + value[-8:]]):
        assert PACKED.decode(values, group, NOW).status.tolist() == [Status.CORRUPT] * 2


def test_a_row_outlives_no_other_rows_expiry() -> None:
    group = group_of([Feature("a", "int8")], ttl_ms=1_000)
    values = encode(group, [{"a": 1}, {"a": 2}, {"a": 3}], [NOW_MS, NOW_MS - 1_000, NOW_MS + 5_000])
    decoded = PACKED.decode(values, group, NOW)
    assert decoded.status.tolist() == [Status.OK, Status.EXPIRED, Status.OK]
    assert cells(decoded, "a") == [1, 0, 3]


def test_a_tombstone_is_a_missing_row() -> None:
    group = group_of(NUMBERS)
    row = {"clicks": 3, "vector": [1.0, 2.0, 3.0], "stock": False, "price": 2.5}
    grave = tombstone(NOW_MS + 5, NOW + 60)
    for now in (NOW, NOW + 120):
        decoded = PACKED.decode([grave, *encode(group, [row]), grave], group, now)
        assert decoded.status.tolist() == [Status.MISSING, Status.OK, Status.MISSING]
        assert cells(decoded, "clicks") == [-1, 3, -1]
    assert PACKED.decode([grave], group, NOW).status.tolist() == [Status.MISSING]


def test_tombstones_carry_their_own_event_times() -> None:
    times = np.array([5, 2**53, 0], dtype=np.uint64)
    graves = PACKED.tombstones(times, NOW)
    assert [len(grave) for grave in graves] == [24, 24, 24]
    assert [PACKED.order(grave) for grave in graves] == [(5, True), (2**53, True), (0, True)]
    assert PACKED.tombstones(times[:0], NOW) == []
    read = read_row(graves[1], [])
    assert (read.layout, read.flags, read.expiry_s, read.event_time_ms) == (1, 1, NOW, 2**53)


def test_the_order_of_a_value_is_its_event_time_then_its_death() -> None:
    group = group_of(MIXED[:1])
    (value,) = encode(group, [{"clicks": 1}], [77])
    assert PACKED.order(value) == (77, False)
    assert PACKED.order(tombstone(77, 0)) == (77, True)
    assert PACKED.order(value) < PACKED.order(tombstone(77, 0))


@FEW
@given(st.binary(max_size=40))
def test_foreign_bytes_have_an_order(value: bytes) -> None:
    time, dead = PACKED.order(value)
    assert time >= 0
    assert dead in (False, True)


# schema versions


def test_a_row_of_an_older_version_has_defaults_for_what_it_lacks() -> None:
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
    lacks, stored, none = Provenance.NOT_IN_VERSION, Provenance.STORED, Provenance.NO_ROW
    assert rows.provenance("c").tolist() == [lacks, stored, lacks, none]
    assert rows.provenance("b").tolist() == [stored, stored, Provenance.NULL, none]
    assert_fill_agrees(rows, [new[1], new[2], new[3]], group)
    with pytest.raises(Unknown):
        rows.column("a")


@st.composite
def histories(draw: st.DrawFn) -> FeatureGroup:
    """A few versions, each some of a pool of features in an order of its own."""
    pool = draw(schemas())
    versions = [
        [pool[at] for at in draw(st.permutations(range(len(pool))))][
            : draw(st.integers(1, len(pool)))
        ]
        for _ in range(draw(st.integers(1, 3)))
    ]
    return group_of(*versions, ttl_ms=1_000)


KINDS = ("ok", "ok", "ok", "missing", "expired", "dead", "unknown", "cut", "foreign")
STATUS_OF_KIND = {
    "ok": Status.OK,
    "missing": Status.MISSING,
    "dead": Status.MISSING,
    "expired": Status.EXPIRED,
    "unknown": Status.CORRUPT,
    "cut": Status.CORRUPT,
    "foreign": Status.CORRUPT,
}


@FEW
@given(histories(), st.data())
def test_a_batch_of_everything_gives_each_row_its_own(
    group: FeatureGroup, data: st.DataObject
) -> None:
    foreign = replace(
        group, versions=tuple(replace(each, group="other.g") for each in group.versions)
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
        elif kind == "dead":
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
        found = decoded.column(feature.name)
        codes = decoded.provenance(feature.name).tolist()
        for at, (kind, number, row) in enumerate(zip(kinds, numbers, rows, strict=True)):
            wanted = default.tolist()
            code = Provenance.NO_ROW
            if kind == "ok":
                code = Provenance.NOT_IN_VERSION
                if feature.name in group.versions[number - 1].index:
                    stored = row[feature.name]
                    code = Provenance.NULL if stored is None else Provenance.STORED
                    wanted = wanted if stored is None else listed(stored, feature.shape)
            assert codes[at] == code
            assert found.nulls is None or found.nulls[at] == (code == Provenance.NULL)
            assert same(found.values[at : at + 1].tolist(), [wanted])
    assert_fill_agrees(decoded, [f for f in group.current.features if f.dtype != "string"], group)


@pytest.mark.parametrize("number", [0, 2, 255, 65535])
def test_a_version_number_that_is_not_known_is_reported(number: int) -> None:
    group = group_of([Feature("a", "int8", default=9)])
    good, other = encode(group, [{"a": 1}, {"a": 2}])
    strange = other[:2] + number.to_bytes(2, "little") + other[4:]
    decoded = PACKED.decode([good, strange, None], group, NOW)
    assert decoded.status.tolist() == [Status.OK, Status.CORRUPT, Status.MISSING]
    assert decoded.unknown_versions == {number}
    assert cells(decoded, "a") == [1, 9, 9]
    assert PACKED.decode([strange], group, NOW).unknown_versions == {number}


def test_a_row_of_another_groups_history_is_corrupt() -> None:
    here, there = group_of(MIXED), group_of(MIXED, name="product.h")
    row = {"clicks": 1, "title": "t", "vector": [1.0, 2.0, 3.0], "stock": False, "price": 2.5}
    decoded = PACKED.decode([*encode(there, [row]), *encode(here, [row])], here, NOW)
    assert decoded.status.tolist() == [Status.CORRUPT, Status.OK]
    assert cells(decoded, "title") == ["?", "t"]


# damage

ROWS = (
    {"clicks": 1, "title": "één", "vector": [1.0, 2.0, 3.0], "stock": False, "price": 0.5},
    {"clicks": 2, "title": "zwei", "vector": [4.0, 5.0, 6.0], "stock": True, "price": 1.5},
    {"clicks": 3, "title": "drei", "vector": [7.0, 8.0, 9.0], "stock": False, "price": 2.5},
)
DAMAGED = pytest.mark.parametrize("schema", [MIXED, NUMBERS], ids=["with strings", "numbers"])


def assert_neighbours_are_right(group: FeatureGroup, values: Sequence[bytes], at: int) -> Rows:
    """Decode; every row but `at` must be as it was written. Read what there is of `at`, too."""
    decoded = PACKED.decode(values, group, NOW)
    for each in range(len(values)):
        if each != at:
            assert decoded.status[each] == Status.OK
    for feature in group.current.features:
        found = cells(decoded, feature.name)
        for each, value in enumerate(found):
            if each != at:
                assert value == ROWS[each][feature.name]
            elif decoded.status[at] != Status.OK:
                assert same(value, feature.default_array().tolist())
                assert decoded.provenance(feature.name)[at] == Provenance.NO_ROW
    return decoded


@DAMAGED
@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_flipped_bit_of_a_header_harms_no_value(schema: Sequence[Feature], at: int) -> None:
    group = group_of(schema)
    values = encode(group, ROWS)
    for bit in range(24 * 8):
        damaged = bytearray(values[at])
        damaged[bit // 8] ^= 1 << bit % 8
        rows = assert_neighbours_are_right(
            group, [*values[:at], bytes(damaged), *values[at + 1 :]], at
        )
        if rows.status[at] == Status.OK:
            found = {feature.name: cells(rows, feature.name)[at] for feature in schema}
            assert found == {feature.name: ROWS[at][feature.name] for feature in schema}
        field = bit // 8
        if field in (0, 2, 3, 4, 5, 6, 7, 12, 13, 14, 15):
            assert rows.status[at] == Status.CORRUPT


@DAMAGED
@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_flipped_bit_of_a_body_harms_no_neighbour(schema: Sequence[Feature], at: int) -> None:
    group = group_of(schema)
    values = encode(group, ROWS)
    for bit in range(24 * 8, len(values[at]) * 8):
        damaged = bytearray(values[at])
        damaged[bit // 8] ^= 1 << bit % 8
        assert_neighbours_are_right(group, [*values[:at], bytes(damaged), *values[at + 1 :]], at)


@DAMAGED
@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_row_of_a_wrong_length_is_corrupt(schema: Sequence[Feature], at: int) -> None:
    group = group_of(schema)
    values = encode(group, ROWS)
    cut = [values[at][:length] for length in range(len(values[at]))]
    for damaged in (*cut, values[at] + b"\0", values[at] * 2):
        rows = assert_neighbours_are_right(group, [*values[:at], damaged, *values[at + 1 :]], at)
        assert rows.status[at] == Status.CORRUPT
        alone = PACKED.decode([damaged], group, NOW)
        assert alone.status.tolist() == [Status.CORRUPT]


@pytest.mark.parametrize(
    ("offset", "length"), [(0, 4), (8, 4), (2**32 - 1, 4), (48, 2**32 - 1), (2**31, 2**31)]
)
def test_a_string_that_points_out_of_its_place_is_corrupt(offset: int, length: int) -> None:
    group = group_of(MIXED)
    values = encode(group, ROWS)
    at = 24 + 8 + 4  # after the header, price and clicks
    assert values[1][at + 4 : at + 8] == len("zwei").to_bytes(4, "little")
    damaged = (
        values[1][:at]
        + offset.to_bytes(4, "little")
        + length.to_bytes(4, "little")
        + values[1][at + 8 :]
    )
    rows = assert_neighbours_are_right(group, [values[0], damaged, values[2]], 1)
    assert rows.status[1] == Status.CORRUPT


def test_a_string_that_is_no_utf8_is_corrupt() -> None:
    group = group_of(MIXED)
    values = encode(group, ROWS)
    damaged = values[1].replace(b"zwei", b"zw\xffi")
    rows = assert_neighbours_are_right(group, [values[0], damaged, values[2]], 1)
    assert rows.status[1] == Status.CORRUPT


@DAMAGED
@FEW
@given(data=st.data())
def test_any_bytes_give_a_status(schema: Sequence[Feature], data: st.DataObject) -> None:
    group = group_of(schema)
    header = encode(group, ROWS)[0][:24]
    noise = st.binary(max_size=80) | st.binary(min_size=0, max_size=80).map(
        lambda body: header[:12] + len(body).to_bytes(4, "little") + header[16:] + body
    )
    values = data.draw(st.lists(st.none() | noise, max_size=6))
    decoded = PACKED.decode(values, group, NOW)
    assert len(decoded.status) == len(values)
    for at, value in enumerate(values):
        assert (decoded.status[at] == Status.MISSING) >= (value is None)
    for feature in schema:
        assert len(cells(decoded, feature.name)) == len(values)
        assert len(decoded.provenance(feature.name)) == len(values)
    assert_fill_agrees(decoded, [feature for feature in schema if feature.dtype != "string"], group)
