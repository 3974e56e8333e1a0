"""Groups, rows and batches for the tests of the codecs: fixed ones, and Hypothesis strategies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st

from kirana.codecs import CODECS, Codec, Column, Rows, Status
from kirana.codecs.rows import MatrixPlan, Provenance
from kirana.schema import DTYPES, NUMERIC, Array, Entity, Feature, FeatureGroup, Key, SchemaVersion

PACKED = CODECS["packed"]
PRODUCT = Entity("product", (Key("product_id"),))
FEW = settings(max_examples=40)
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
ROWS = (
    {"clicks": 1, "title": "één", "vector": [1.0, 2.0, 3.0], "stock": False, "price": 0.5},
    {"clicks": 2, "title": "zwei", "vector": [4.0, 5.0, 6.0], "stock": True, "price": 1.5},
    {"clicks": 3, "title": "drei", "vector": [7.0, 8.0, 9.0], "stock": False, "price": 2.5},
)


def group_of(
    *versions: Sequence[Feature], ttl_ms: int = 0, name: str = "product.g"
) -> FeatureGroup:
    """Return a group with these schema versions, from the oldest to the newest."""
    numbered = tuple(
        SchemaVersion(name, number, tuple(features))
        for number, features in enumerate(versions, start=1)
    )
    return FeatureGroup(name, PRODUCT, ttl_ms, "packed", numbered)


def column(feature: Feature, values: Sequence[Any]) -> Column:
    """Return values of a feature as a column. None means null."""
    nulls = np.array([value is None for value in values], dtype=np.bool_)
    out: Array
    if feature.dtype == "string":
        out = np.array([value or "" for value in values], dtype=object)
    elif feature.dtype == "bool":
        out = np.array([bool(value) for value in values], dtype=np.bool_)
    else:
        out = np.zeros((len(values), *feature.shape), dtype=NUMERIC[feature.dtype])
        for i, value in enumerate(values):
            if value is not None:
                out[i] = np.array(value, dtype=out.dtype).reshape(feature.shape)
    return Column(out, nulls if nulls.any() else None)


Row = Mapping[str, Any]


def tombstone(event_time_ms: int, expiry_s: int) -> bytes:
    """Return one packed tombstone."""
    (value,) = PACKED.tombstones(np.array([event_time_ms], dtype=np.uint64), expiry_s)
    return value


def columns_of(group: FeatureGroup, rows: Sequence[Row], version: int = 0) -> dict[str, Column]:
    """Return rows as columns of schema version `version`, where 0 stands for the newest."""
    features = group.versions[version - 1].features
    return {
        feature.name: column(feature, [row[feature.name] for row in rows]) for feature in features
    }


def encode(
    group: FeatureGroup,
    rows: Sequence[Row],
    times: Sequence[int] | None = None,
    version: int = 0,
    codec: Codec = PACKED,
) -> list[bytes]:
    """Encode rows by schema version `version`, where 0 stands for the newest."""
    schema = group.versions[version - 1]
    event_times = np.array([NOW_MS] * len(rows) if times is None else times, dtype=np.uint64)
    return codec.encode(group, schema, columns_of(group, rows, version), event_times)


def cells(rows: Rows, name: str) -> list[Any]:
    """Return the values of a column, None for nulls."""
    column = rows.column(name)
    nulls = [False] * len(column.values) if column.nulls is None else column.nulls.tolist()
    return [
        None if null else value for value, null in zip(column.values.tolist(), nulls, strict=True)
    ]


def same(left: Any, right: Any) -> bool:
    """Return whether two values are equal. NaN equals NaN, and -0.0 does not equal 0.0."""
    return repr(left) == repr(right)


def listed(value: Any, shape: tuple[int, ...]) -> Any:
    """Return a vector as nested lists of this shape. Return a scalar or None unchanged."""
    return (
        value
        if value is None or not shape
        else np.array(value, dtype=object).reshape(shape).tolist()
    )


# strategies: schemas, and the rows that they allow


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
    return tuple(draw(features(f"f{i}")) for i in range(count))


@st.composite
def tables(draw: st.DrawFn) -> tuple[FeatureGroup, list[Row]]:
    schema = draw(schemas())
    return group_of(schema), draw(st.lists(row_of(schema), min_size=1, max_size=5))


@st.composite
def histories(draw: st.DrawFn) -> FeatureGroup:
    """Draw a group of up to three schema versions, each with some features of one pool."""
    pool = draw(schemas())
    versions = [
        [pool[i] for i in draw(st.permutations(range(len(pool))))][
            : draw(st.integers(1, len(pool)))
        ]
        for _ in range(draw(st.integers(1, 3)))
    ]
    return group_of(*versions, ttl_ms=1_000)


KINDS = ("ok", "ok", "ok", "missing", "expired", "deleted", "unknown", "cut", "foreign")
STATUS_OF_KIND = {
    "ok": Status.OK,
    "missing": Status.MISSING,
    "deleted": Status.MISSING,
    "expired": Status.EXPIRED,
    "unknown": Status.CORRUPT,
    "cut": Status.CORRUPT,
    "foreign": Status.CORRUPT,
}


def assert_fill_agrees(rows: Rows, wanted: Sequence[Feature], group: FeatureGroup) -> None:
    """Assert that `fill` writes the wanted columns, converted to float32, side by side."""
    count = len(rows.status)
    out = np.full((count, sum(feature.size for feature in wanted)), 12345.0, dtype=np.float32)
    blocks = [np.empty((count, 0), dtype=np.float32)]
    with np.errstate(over="ignore"):
        if wanted:
            rows.fill(out, MatrixPlan(group.current, tuple(feature.name for feature in wanted)))
        for feature in wanted:
            block = rows.column(feature.name).values.reshape(count, feature.size)
            blocks.append(block.astype(np.float32))
    np.testing.assert_array_equal(out, np.concatenate(blocks, axis=1))


def assert_neighbours_are_right(group: FeatureGroup, values: Sequence[bytes], damaged: int) -> Rows:
    """Decode `values`, the encoded `ROWS` with damage to one of them, and return the rows.

    Assert that all rows but the one at `damaged` are as they were written. Assert that the row at
    `damaged` has defaults unless its status is OK.
    """
    decoded = PACKED.decode(values, group, NOW)
    for i in range(len(values)):
        if i != damaged:
            assert decoded.status[i] == Status.OK
    for feature in group.current.features:
        column = cells(decoded, feature.name)
        for i, value in enumerate(column):
            if i != damaged:
                assert value == ROWS[i][feature.name]
            elif decoded.status[damaged] != Status.OK:
                assert same(value, feature.default_array().tolist())
                assert decoded.provenance(feature.name)[damaged] == Provenance.NO_ROW
    return decoded
