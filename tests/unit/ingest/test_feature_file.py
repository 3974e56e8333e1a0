"""Files as rows of a feature group: columns, keys and event times."""

from __future__ import annotations

import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kirana.clock import LAST_MILLISECONDS, LAST_SECONDS, MAX_FUTURE_MS
from kirana.codecs import Column
from kirana.codecs.rows import Texts
from kirana.errors import InvalidInput
from kirana.ingest.feature_batch import FeatureBatch
from kirana.ingest.feature_file import FeatureFile
from kirana.ingest.files import source_files
from kirana.ingest.formats.base import BATCH_BYTES, BATCH_ROWS
from kirana.ingest.problems import error_of
from kirana.ingest.source import Source
from kirana.schema import NUMERIC, Entity, Feature, FeatureGroup, Key, SchemaVersion

NOW_MS = 1_700_000_000_000
LATEST_MS = NOW_MS + MAX_FUTURE_MS
USER_GENRE = Entity("user_genre", (Key("user_id"), Key("genre_id", "int64")))
PRODUCT = Entity("product", (Key("product_id"),))


def group_of(*features: Feature, entity: Entity = PRODUCT) -> FeatureGroup:
    name = f"{entity.name}.g"
    return FeatureGroup(name, entity, 0, "packed", (SchemaVersion(name, 1, features),))


def opened(path: Path, group: FeatureGroup, source: Source | None = None) -> FeatureFile:
    """Open a file. Raise `InvalidInput` if its columns are wrong."""
    ((found,), _) = source_files([str(path)], None, [group.name])
    file = FeatureFile(found, group, group.current, source)
    if file.problems:
        raise error_of(file.problems, len(file.problems))
    return file


def open_file(
    folder: Path,
    columns: dict[str, Any],
    group: FeatureGroup,
    source: Source | None = None,
) -> FeatureFile:
    path = folder / f"{group.name}.parquet"
    pq.write_table(pa.table(columns), path)
    return opened(path, group, source)


def check(file: FeatureFile) -> list[int]:
    """Check all rows, and return the number of rows of each batch. Raise if one is wrong."""
    batches = list(file.check(NOW_MS))
    problems = [problem for batch in batches for problem in batch.problems]
    if problems:
        raise error_of(problems, len(problems))
    return [batch.stop - batch.start for batch in batches]


def read(folder: Path, columns: dict[str, Any], group: FeatureGroup) -> FeatureBatch:
    """Write a file that fits into one batch, check it, and read the batch."""
    file = open_file(folder, columns, group)
    check(file)
    (batch,) = file.batches(NOW_MS)
    return batch


def read_one(folder: Path, feature: Feature, values: Any) -> Column:
    """Write a file with one feature, and read it; return the feature's column."""
    columns = {"product_id": [str(i) for i in range(len(values))], feature.name: values}
    column = read(folder, columns, group_of(feature)).columns[feature.name]
    return column_of(column) if isinstance(column, Texts) else column


def column_of(texts: Texts) -> Column:
    joined = texts.data.tobytes()
    spans = zip(texts.starts.tolist(), texts.sizes.tolist(), strict=True)
    strings = [joined[start : start + size].decode() for start, size in spans]
    return Column(np.array(strings, dtype=object), texts.nulls)


def refusal(folder: Path, columns: dict[str, Any], group: FeatureGroup) -> InvalidInput:
    """Assert that the check of a file fails; return the error."""
    with pytest.raises(InvalidInput, match=r"product\.g\.parquet(, row \d+)?, column") as caught:
        check(open_file(folder, columns, group))
    return caught.value


def refuse_one(folder: Path, feature: Feature, values: Any) -> str | None:
    """Assert that a file with one feature is refused; return the field that the error names."""
    columns = {"product_id": [str(i) for i in range(len(values))], feature.name: values}
    return refusal(folder, columns, group_of(feature)).field


def decimals(*texts: str, scale: int = 2) -> Any:
    return pa.array([Decimal(text) for text in texts], pa.decimal128(20, scale))


@pytest.mark.parametrize("dtype", NUMERIC)
def test_every_numeric_dtype_is_read_with_nulls(tmp_path: Path, dtype: str) -> None:
    values = pa.array([1, None, 3], pa.from_numpy_dtype(NUMERIC[dtype]))
    column = read_one(tmp_path, Feature("a", dtype), values)
    assert column.values.dtype == NUMERIC[dtype]
    assert column.values[[0, 2]].tolist() == [1, 3]
    assert column.nulls is not None
    assert column.nulls.tolist() == [False, True, False]


@pytest.mark.parametrize("type_", [pa.int8(), pa.uint16(), pa.int64(), pa.uint64(), pa.float64()])
def test_integers_of_any_arrow_type_are_read_as_the_features_dtype(
    tmp_path: Path, type_: pa.DataType
) -> None:
    column = read_one(tmp_path, Feature("a", "int32"), pa.array([1, 100], type_))
    assert column.values.dtype == np.int32
    assert column.values.tolist() == [1, 100]
    assert column.nulls is None


@pytest.mark.parametrize(
    ("dtype", "values"),
    [
        ("int32", pa.array([0, 2**31])),
        ("int32", pa.array([-(2**31) - 1])),
        ("uint8", pa.array([-1])),
        ("int64", pa.array([2**63], pa.uint64())),
        ("int32", pa.array([1.5])),
        ("int32", pa.array([float("nan")])),
        ("int32", pa.array([1e12])),
        ("int32", pa.array(["1"])),
        ("int32", pa.array([True])),
        ("float32", pa.array(["1.5"])),
        ("float32", pa.array([True])),
        ("float32", pa.array([[1.5]])),
        ("string", pa.array([[1]])),
        ("string", pa.array([b"\xff"])),
        ("bool", pa.array(["maybe"])),
    ],
)
def test_values_that_do_not_fit_the_dtype_are_refused_and_the_column_is_named(
    tmp_path: Path, dtype: str, values: pa.Array
) -> None:
    assert refuse_one(tmp_path, Feature("a", dtype), values) == "a"


@pytest.mark.parametrize(("dtype", "beyond"), [("float16", 65_600.0), ("float32", 1e39)])
def test_a_number_beyond_the_range_of_a_float_is_refused(
    tmp_path: Path, dtype: str, beyond: float
) -> None:
    assert refuse_one(tmp_path, Feature("a", dtype), pa.array([1.0, beyond])) == "a"
    lists = pa.array([[1.0, beyond]])
    assert refuse_one(tmp_path, Feature("a", dtype, (2,)), lists) == "a"


def test_infinities_and_nan_are_kept(tmp_path: Path) -> None:
    values = pa.array([float("inf"), float("-inf"), float("nan")])
    column = read_one(tmp_path, Feature("a", "float32"), values)
    assert repr(column.values.tolist()) == "[inf, -inf, nan]"


def test_a_float_may_be_rounded(tmp_path: Path) -> None:
    column = read_one(tmp_path, Feature("a", "float32"), pa.array([0.1]))
    assert column.values.tolist() == [float(np.float32(0.1))]


@pytest.mark.parametrize("values", [pa.array([0, 1]), pa.array([2.0]), pa.array(["true"])])
def test_a_bool_feature_refuses_other_types(tmp_path: Path, values: pa.Array) -> None:
    assert refuse_one(tmp_path, Feature("a", "bool"), values) == "a"


@pytest.mark.parametrize(
    "type_", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())]
)
def test_strings_of_any_arrow_type_are_read(tmp_path: Path, type_: pa.DataType) -> None:
    values = pa.array(["a", None, "", "é"]).cast(type_)
    column = read_one(tmp_path, Feature("a", "string"), values)
    assert column.values.tolist() == ["a", "", "", "é"]
    assert column.nulls is not None
    assert column.nulls.tolist() == [False, True, False, False]


def test_booleans_are_read_with_nulls(tmp_path: Path) -> None:
    column = read_one(tmp_path, Feature("a", "bool"), pa.array([True, None, False]))
    assert column.values.tolist() == [True, False, False]
    assert column.nulls is not None
    assert column.nulls.tolist() == [False, True, False]


@pytest.mark.parametrize(
    "type_",
    [pa.list_(pa.float64()), pa.large_list(pa.float32()), pa.list_(pa.int64(), 2)],
    ids=str,
)
def test_lists_are_read_as_vectors(tmp_path: Path, type_: pa.DataType) -> None:
    values = pa.array([[1, 2], None, [3, 4]], type_)
    column = read_one(tmp_path, Feature("a", "float32", (2,)), values)
    assert column.values.dtype == np.float32
    assert column.values.tolist() == [[1, 2], [0, 0], [3, 4]]
    assert column.nulls is not None
    assert column.nulls.tolist() == [False, True, False]


def test_lists_that_are_all_null_are_read(tmp_path: Path) -> None:
    values = pa.array([None, None], pa.list_(pa.float32()))
    column = read_one(tmp_path, Feature("a", "float16", (2,)), values)
    assert column.values.shape == (2, 2)
    assert column.nulls is not None
    assert column.nulls.tolist() == [True, True]


def test_nested_lists_have_the_shape_of_the_feature(tmp_path: Path) -> None:
    values = pa.array([[[1, 2, 3], [4, 5, 6]], None])
    column = read_one(tmp_path, Feature("a", "int8", (2, 3)), values)
    assert column.values.tolist() == [[[1, 2, 3], [4, 5, 6]], [[0, 0, 0], [0, 0, 0]]]


@pytest.mark.parametrize(
    "values", [[[[1, 2], [3, 4]]], [[[1], [2, 3]]], [[[[1, 2, 3]]] * 2]], ids=str
)
def test_nested_lists_of_another_shape_are_refused(tmp_path: Path, values: list[Any]) -> None:
    assert refuse_one(tmp_path, Feature("a", "int8", (2, 3)), pa.array(values)) == "a"


@pytest.mark.parametrize(
    "values",
    [[[1, 2], [3]], [[1, 2, 3]], [[]], [[1, None]], [1, 2], ["ab"], [[1, 300]], [[1, 2.5]]],
    ids=repr,
)
def test_a_list_that_is_not_a_vector_of_the_feature_is_refused(
    tmp_path: Path, values: list[Any]
) -> None:
    assert refuse_one(tmp_path, Feature("a", "int8", (2,)), pa.array(values)) == "a"


@pytest.mark.usefixtures("inner_loops")
def test_key_texts_follow_the_order_of_the_entitys_keys(tmp_path: Path) -> None:
    group = group_of(Feature("a", "int8"), entity=USER_GENRE)
    columns = {"genre_id": [1, 2], "a": [1, 2], "user_id": ["x|y", "z"]}
    assert read(tmp_path, columns, group).keys.to_pylist() == ["x\\|y|1", "z|2"]


@pytest.mark.usefixtures("inner_loops")
def test_integers_for_a_string_key_become_decimal_texts(tmp_path: Path) -> None:
    group = group_of(Feature("a", "int8"))
    assert read(tmp_path, {"product_id": [7, -8], "a": [1, 2]}, group).keys.to_pylist() == [
        "7",
        "-8",
    ]


@pytest.mark.usefixtures("inner_loops")
@pytest.mark.parametrize(
    "keys", [["1", None], [1.5, 2.0], [True, False], ["", "1"], ["1", "x" * 500]]
)
def test_invalid_keys_are_refused(tmp_path: Path, keys: list[Any]) -> None:
    error = refusal(tmp_path, {"product_id": keys, "a": [1, 2]}, group_of(Feature("a", "int8")))
    assert error.field == "product_id"


def test_whole_decimals_are_keys(tmp_path: Path) -> None:
    keys, group = decimals("7", "123456789012345", scale=0), group_of(Feature("a", "int8"))
    assert read(tmp_path, {"product_id": keys, "a": [1, 2]}, group).keys.to_pylist() == [
        "7",
        "123456789012345",
    ]


def test_a_null_key_is_reported_with_its_row_in_the_file(tmp_path: Path) -> None:
    keys: list[str | None] = [str(i) for i in range(BATCH_ROWS + 5)]
    keys[BATCH_ROWS + 3] = None
    columns = {"product_id": keys, "a": np.zeros(len(keys), dtype=np.int8)}
    error = refusal(tmp_path, columns, group_of(Feature("a", "int8")))
    assert f"row {BATCH_ROWS + 3}, " in error.message


@pytest.mark.usefixtures("inner_loops")
def test_a_large_file_is_read_completely_in_batches(tmp_path: Path) -> None:
    count = 2 * BATCH_ROWS + 7
    columns = {"product_id": np.arange(count), "a": np.arange(count)}
    file = open_file(tmp_path, columns, group_of(Feature("a", "int32")))
    reported = check(file)
    assert file.rows == sum(reported) == count
    batches = list(file.batches(NOW_MS))
    assert [key for batch in batches for key in batch.keys.to_pylist()] == [
        str(i) for i in range(count)
    ]
    joined = np.concatenate([batch.columns["a"].values for batch in batches])
    assert joined.tolist() == list(range(count))


def test_a_file_without_rows_is_accepted(tmp_path: Path) -> None:
    columns = {"product_id": pa.array([], pa.string()), "a": pa.array([], pa.int8())}
    file = open_file(tmp_path, columns, group_of(Feature("a", "int8")))
    check(file)
    assert file.rows == 0
    assert [key for batch in file.batches(NOW_MS) for key in batch.keys.to_pylist()] == []


TEXT_TYPES = [
    *(pa.string(), pa.large_string(), pa.string_view()),
    *(pa.binary(), pa.large_binary(), pa.binary_view()),
    *(pa.dictionary(pa.int32(), type_) for type_ in (pa.string(), pa.binary(), pa.large_string())),
]
every_text_type = pytest.mark.parametrize("kind", TEXT_TYPES, ids=str)


@pytest.mark.usefixtures("inner_loops")
@every_text_type
def test_a_long_string_in_many_rows_is_read_in_small_batches(tmp_path: Path, kind: Any) -> None:
    """A dictionary stores the string once, so the file is far smaller than its decoded rows."""
    texts = ["x" * 300_000, "short", None] * 50
    columns = {"product_id": np.arange(len(texts)), "a": pa.array(texts, kind)}
    file = open_file(tmp_path, columns, group_of(Feature("a", "string")))
    assert (tmp_path / "product.g.parquet").stat().st_size < 20_000
    assert sum(check(file)) == len(texts)
    strings: list[str | None] = []
    for batch in file.batches(NOW_MS):
        column = batch.columns["a"]
        assert isinstance(column, Texts)
        assert column.sizes.sum() <= BATCH_BYTES
        nulls = np.zeros(len(column.sizes), np.bool_) if column.nulls is None else column.nulls
        values = column_of(column).values.tolist()
        strings += [None if null else value for value, null in zip(values, nulls, strict=True)]
    assert strings == texts


@pytest.mark.usefixtures("inner_loops")
def test_numbers_that_compress_well_are_read_in_small_batches(tmp_path: Path) -> None:
    count, width = 200, 50_000
    flat = pa.array(np.zeros(count * width, np.float32))
    columns = {"product_id": np.arange(count), "a": pa.FixedSizeListArray.from_arrays(flat, width)}
    group = group_of(Feature("a", "float32", (width,)))
    file = open_file(tmp_path, columns, group)
    assert (tmp_path / "product.g.parquet").stat().st_size < 1_000_000
    for batch in file.batches(NOW_MS):
        column = batch.columns["a"]
        assert isinstance(column, Column)
        assert column.values.nbytes <= BATCH_BYTES


@pytest.mark.usefixtures("inner_loops")
@every_text_type
def test_a_key_may_have_any_arrow_type_of_text(tmp_path: Path, kind: Any) -> None:
    keys = pa.array([b"1", "é".encode(), b"a|b"], pa.binary()).view(pa.string()).cast(kind)
    batch = read(tmp_path, {"product_id": keys, "a": [1, 2, 3]}, group_of(Feature("a", "int8")))
    assert batch.keys.to_pylist() == ["1", "é", "a\\|b"]


@pytest.mark.parametrize("wrong", [b"\xff\xfe", b"\xff|\xfe", b"\xed\xa0\x80"])
@pytest.mark.parametrize("kind", [pa.binary(), pa.string()])
@pytest.mark.parametrize("name", ["product_id", "a"])
def test_bytes_that_are_not_utf8_are_refused(
    tmp_path: Path, wrong: bytes, kind: Any, name: str
) -> None:
    texts = pa.array([b"1", wrong], pa.binary()).view(kind)
    columns = {"product_id": ["1", "2"], "a": ["x", "y"], name: texts}
    error = refusal(tmp_path, columns, group_of(Feature("a", "string")))
    assert error.field == name
    assert "row 1, " in error.message
    assert "invalid UTF-8: " in error.message


@pytest.mark.parametrize(
    "values", [[1, 2], [True, False], [[1], [2]], [datetime.datetime(2026, 1, 1)] * 2]
)
def test_a_string_feature_refuses_types_other_than_text(tmp_path: Path, values: Any) -> None:
    assert refuse_one(tmp_path, Feature("a", "string"), values) == "a"


@pytest.mark.parametrize("dtype", ["string", "bool", "int32", "float16"])
@pytest.mark.parametrize("shape", [(), (2,)])
def test_a_column_of_nulls_is_read_as_nulls(
    tmp_path: Path, dtype: str, shape: tuple[int, ...]
) -> None:
    if shape and dtype in ("string", "bool"):
        return
    column = read_one(tmp_path, Feature("a", dtype, shape), pa.nulls(3))
    assert column.nulls is not None
    assert column.nulls.tolist() == [True] * 3
    assert column.values.shape == (3, *shape)


def test_a_page_with_a_wrong_checksum_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "product.g.parquet"
    columns = {"product_id": np.arange(1000), "a": np.arange(1000, dtype=np.int32)}
    plain = {"use_dictionary": False, "compression": "none", "write_page_checksum": True}
    pq.write_table(pa.table(columns), path, **plain)
    content = bytearray(path.read_bytes())
    content[content.index(np.arange(500, 504, dtype=np.int32).tobytes())] ^= 1
    path.write_bytes(content)
    group = group_of(Feature("a", "int32"))
    with pytest.raises(InvalidInput, match="is damaged"):
        check(opened(path, group))


# columns


@pytest.mark.parametrize("missing", ["product_id", "clicks"])
def test_a_missing_column_is_refused_when_the_file_is_opened(tmp_path: Path, missing: str) -> None:
    columns = {"product_id": ["1"], "clicks": [1]}
    columns[f"{missing}s"] = columns.pop(missing)
    with pytest.raises(InvalidInput, match=rf"its columns are .*{missing}s") as caught:
        open_file(tmp_path, columns, group_of(Feature("clicks", "int32")))
    assert caught.value.field == missing


def test_an_unknown_column_is_refused_when_the_file_is_opened(tmp_path: Path) -> None:
    columns = {"product_id": ["1"], "clicks": [1], "click": [2]}
    with pytest.raises(InvalidInput, match="did you mean 'clicks'") as caught:
        open_file(tmp_path, columns, group_of(Feature("clicks", "int32")))
    assert caught.value.field == "click"


def test_a_duplicate_column_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "product.g.parquet"
    arrays = [pa.array(["1"]), pa.array([1]), pa.array([2])]
    pq.write_table(pa.Table.from_arrays(arrays, ["product_id", "a", "a"]), path)
    group = group_of(Feature("a", "int32"))
    with pytest.raises(InvalidInput) as caught:
        check(opened(path, group))
    assert caught.value.field == "a"


@pytest.mark.parametrize("content", [b"", b"product_id,a\n1,2\n", b"PAR1" * 5])
def test_a_file_that_is_not_parquet_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "product.g.parquet"
    path.write_bytes(content)
    group = group_of(Feature("a", "int32"))
    with pytest.raises(InvalidInput, match="can't be read as Parquet"):
        opened(path, group)


def test_a_file_damaged_in_its_middle_is_refused(tmp_path: Path) -> None:
    group = group_of(Feature("a", "int32"))
    open_file(tmp_path, {"product_id": np.arange(1000), "a": np.arange(1000)}, group)
    path = tmp_path / "product.g.parquet"
    content = bytearray(path.read_bytes())
    content[4:2000] = bytes(1996)
    path.write_bytes(content)
    with pytest.raises(InvalidInput, match=r"Parquet|is damaged"):
        check(opened(path, group))


# event times


def times_of(folder: Path, times: Any) -> list[int]:
    """Write a file with these event times, and read it; return the times in milliseconds."""
    columns = {
        "product_id": [str(i) for i in range(len(times))],
        "a": np.zeros(len(times), dtype=np.int8),
        "event_time": times,
    }
    event_times = read(folder, columns, group_of(Feature("a", "int8"))).event_time_ms
    assert event_times.dtype == np.uint64
    return [int(time) for time in event_times]


def refuse_time(folder: Path, times: Any) -> str:
    """Assert that a file is refused for its event times; return the message."""
    columns = {
        "product_id": [str(i) for i in range(len(times))],
        "a": np.zeros(len(times), dtype=np.int8),
        "event_time": times,
    }
    error = refusal(folder, columns, group_of(Feature("a", "int8")))
    assert error.field == "event_time"
    return error.message


def test_rows_of_a_file_without_event_times_get_the_current_time(tmp_path: Path) -> None:
    batch = read(tmp_path, {"product_id": ["1"], "a": [1]}, group_of(Feature("a", "int8")))
    assert batch.event_time_ms.tolist() == [NOW_MS]


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "Asia/Kolkata"])
def test_timestamps_of_any_unit_and_time_zone_are_read(
    tmp_path: Path, unit: str, zone: str | None
) -> None:
    moment = datetime.datetime(2023, 11, 14, 22, 13, 19, tzinfo=datetime.UTC)
    times = pa.array([moment], pa.timestamp("us", "UTC")).cast(pa.timestamp(unit, zone))
    assert times_of(tmp_path, times) == [NOW_MS - 1_000]


def test_fractions_of_a_millisecond_are_cut(tmp_path: Path) -> None:
    assert times_of(tmp_path, pa.array([1_999], pa.timestamp("us"))) == [1]


@pytest.mark.parametrize("type_", [pa.int64(), pa.uint64(), pa.float64()])
def test_numbers_are_milliseconds(tmp_path: Path, type_: pa.DataType) -> None:
    assert times_of(tmp_path, pa.array([NOW_MS, 0], type_)) == [NOW_MS, 0]


@pytest.mark.parametrize("type_", [pa.int64(), pa.uint64(), pa.float64()])
@pytest.mark.parametrize(
    ("time", "unit", "time_ms"),
    [
        (1, "seconds", 1_000),
        (LAST_SECONDS, "seconds", 10**14),
        (LAST_MILLISECONDS + 1, "microseconds", 10**11),
        (NOW_MS * 1_000, "microseconds", NOW_MS),
        (NOW_MS * 1_000_000, "nanoseconds", NOW_MS),
    ],
)
def test_a_number_of_another_unit_is_refused_and_its_row_is_named(
    tmp_path: Path, type_: pa.DataType, time: int, unit: str, time_ms: int
) -> None:
    times = pa.array([NOW_MS, 0, time, time]).cast(type_, safe=False)
    message = refuse_time(tmp_path, times)
    assert (
        f"row 2, column 'event_time': {time} looks like {unit}: send milliseconds, {time_ms}"
        in message
    )


def test_a_time_of_another_unit_is_reported_with_its_row_in_the_file(tmp_path: Path) -> None:
    times = np.full(BATCH_ROWS + 5, NOW_MS)
    times[BATCH_ROWS + 3] = NOW_MS // 1_000
    assert f"row {BATCH_ROWS + 3}, " in refuse_time(tmp_path, times)


def test_the_smallest_integer_that_can_be_milliseconds_is_read(tmp_path: Path) -> None:
    assert times_of(tmp_path, [LAST_SECONDS + 1, 0]) == [LAST_SECONDS + 1, 0]
    # This value is a valid number of milliseconds, but it lies in the future.
    assert "more than five minutes in the future" in refuse_time(tmp_path, [LAST_MILLISECONDS])


@pytest.mark.parametrize("unit", ["s", "ms"])
@pytest.mark.parametrize("time", [1, LAST_SECONDS // 1_000])
def test_a_timestamp_close_to_1970_is_accepted_because_its_unit_is_known(
    tmp_path: Path, unit: str, time: int
) -> None:
    time_ms = time * 1_000 if unit == "s" else time
    assert times_of(tmp_path, pa.array([time], pa.timestamp(unit))) == [time_ms]


def test_an_event_time_is_at_most_five_minutes_ahead(tmp_path: Path) -> None:
    assert times_of(tmp_path, [LATEST_MS]) == [LATEST_MS]
    assert "more than five minutes in the future" in refuse_time(tmp_path, [NOW_MS, LATEST_MS + 1])


@pytest.mark.parametrize(
    "times",
    [
        [-1],
        [NOW_MS, None],
        ["yesterday"],
        [1.5],
        pa.array([-1], pa.timestamp("s")),
    ],
    ids=str,
)
def test_invalid_times_are_refused(tmp_path: Path, times: Any) -> None:
    refuse_time(tmp_path, times)


@pytest.mark.parametrize("kind", [pa.date32(), pa.date64()])
def test_a_date_is_the_start_of_its_day_in_utc(tmp_path: Path, kind: Any) -> None:
    times = pa.array([datetime.date(2023, 11, 14)]).cast(kind)
    assert times_of(tmp_path, times) == [1_699_920_000_000]


# what programs write


@pytest.mark.parametrize(
    ("dtype", "values", "expected"),
    [
        ("int32", decimals("3.00", "-4"), [3, -4]),
        ("int64", decimals("9007199254740993", scale=0), [9007199254740993]),
        ("float64", decimals("12.34", "5"), [12.34, 5.0]),
        ("float64", decimals("9007199254740993.0", "1.5"), [9007199254740992.0, 1.5]),
        ("uint64", decimals("18446744073709551615", scale=0), [2**64 - 1]),
        ("int64", pa.array([NOW_MS], pa.timestamp("ms")), [NOW_MS]),
        ("int64", pa.array([NOW_MS * 1_000], pa.timestamp("us", "UTC")), [NOW_MS]),
        ("float64", pa.array([datetime.date(1970, 1, 2)]), [86_400_000.0]),
    ],
    ids=str,
)
def test_decimals_and_times_become_numbers(
    tmp_path: Path, dtype: str, values: Any, expected: list[float]
) -> None:
    assert read_one(tmp_path, Feature("a", dtype), values).values.tolist() == expected


@pytest.mark.parametrize(
    ("dtype", "values"),
    [
        ("int32", decimals("3.01", "4.00")),
        ("int8", decimals("300.00")),
        ("float16", pa.array([2049])),
        ("int64", pa.array([1_001], pa.timestamp("us"))),
        ("float32", pa.array([NOW_MS + 1], pa.timestamp("ms"))),
        ("int32", pa.array([NOW_MS], pa.timestamp("ms"))),
    ],
    ids=str,
)
def test_decimals_and_times_that_would_change_are_refused(
    tmp_path: Path, dtype: str, values: Any
) -> None:
    assert refuse_one(tmp_path, Feature("a", dtype), values) == "a"


def test_a_table_of_pandas_is_read_without_its_index(tmp_path: Path) -> None:
    columns = {
        "product_id": [*"acd"],
        "a": [1.0, 3.0, 4.0],
        "city": pa.array(["x", "z", "x"]).dictionary_encode(),
        "__index_level_0__": [0, 2, 3],
    }
    path = tmp_path / "product.g.parquet"
    pq.write_table(pa.table(columns), path)
    file = opened(path, group_of(Feature("a", "int32"), Feature("city", "string")))
    (batch,) = file.batches(NOW_MS)
    assert batch.keys.to_pylist() == ["a", "c", "d"]
    columns = batch.columns
    assert isinstance(columns["a"], Column)
    assert isinstance(columns["city"], Texts)
    assert columns["a"].values.tolist() == [1, 3, 4]
    assert column_of(columns["city"]).values.tolist() == ["x", "z", "x"]


# renamed, extra and partition columns


def test_renamed_columns_are_read_by_their_new_names(tmp_path: Path) -> None:
    group = group_of(Feature("a", "int8"), Feature("b", "int8"))
    source = Source(renames={"sku": "product_id", "a": "b", "b": "a"})
    columns = {"sku": ["1"], "a": [1], "b": [2]}
    (batch,) = open_file(tmp_path, columns, group, source).batches(NOW_MS)
    assert batch.keys.to_pylist() == ["1"]
    assert [batch.columns[name].values.tolist() for name in ("a", "b")] == [[2], [1]]


@pytest.mark.parametrize(
    ("renames", "message"),
    [
        ({"nothing": "a"}, "column 'nothing': can't be renamed to 'a': the file lacks this column"),
        ({"c": "a"}, "column 'a': the file has this column twice"),
        ({"c": "b"}, "column 'b': 'product.g' version 1 has no such feature"),
    ],
)
def test_a_wrong_new_name_is_refused(tmp_path: Path, renames: dict[str, str], message: str) -> None:
    columns = {"product_id": ["1"], "a": [1], "c": [1]}
    with pytest.raises(InvalidInput, match=message):
        open_file(tmp_path, columns, group_of(Feature("a", "int8")), Source(renames=renames))


def test_extra_columns_are_left_out_on_demand(tmp_path: Path) -> None:
    columns = {"product_id": ["1"], "a": [1], "c": [1], "d": [{"x": 1}]}
    source = Source(ignore_extra=True)
    (batch,) = open_file(tmp_path, columns, group_of(Feature("a", "int8")), source).batches(NOW_MS)
    assert set(batch.columns) == {"a"}


def partitioned(folder: Path, path: str, columns: dict[str, Any]) -> Path:
    file = folder / "product.g" / path / "part-0.parquet"
    file.parent.mkdir(parents=True)
    pq.write_table(pa.table(columns), file)
    return file


def test_partition_columns_are_columns(tmp_path: Path) -> None:
    path = partitioned(tmp_path, "dt=2023-11-14/city=Pune/n=7/product_id=x%7Cy", {"a": [1, 2]})
    group = group_of(Feature("a", "int8"), Feature("city", "string"), Feature("n", "int32"))
    (batch,) = opened(path, group, Source(event_time="dt")).batches(NOW_MS)
    assert batch.keys.to_pylist() == ["x\\|y"] * 2
    city = batch.columns["city"]
    assert isinstance(city, Texts)
    assert column_of(city).values.tolist() == ["Pune"] * 2
    assert batch.columns["n"].values.tolist() == [7, 7]
    assert batch.event_time_ms.tolist() == [1_699_920_000_000] * 2


def test_a_partition_column_may_be_renamed(tmp_path: Path) -> None:
    path = partitioned(tmp_path, "sku=7", {"a": [1]})
    source = Source(renames={"sku": "product_id"})
    (batch,) = opened(path, group_of(Feature("a", "int8")), source).batches(NOW_MS)
    assert batch.keys.to_pylist() == ["7"]


def test_a_column_in_the_file_and_in_its_path_is_refused(tmp_path: Path) -> None:
    path = partitioned(tmp_path, "a=2", {"product_id": ["1"], "a": [1]})
    with pytest.raises(
        InvalidInput, match="column 'a': this column is in the file and in its path"
    ):
        opened(path, group_of(Feature("a", "int8")))


@pytest.mark.parametrize(
    ("path", "event_time", "column"),
    [
        ("n=x", "event_time", "n"),
        ("n=1/dt=yesterday", "dt", "dt"),
        ("n=1/dt=2999-01-01", "dt", "dt"),
        ("n=1/dt=__HIVE_DEFAULT_PARTITION__", "dt", "dt"),
        ("n=1", "dt", "dt"),
    ],
)
def test_a_wrong_partition_is_one_problem_of_its_file(
    tmp_path: Path, path: str, event_time: str, column: str
) -> None:
    file = partitioned(tmp_path, path, {"product_id": ["1", "2"]})
    with pytest.raises(InvalidInput, match=rf"^{file}, column '{column}': ") as caught:
        opened(file, group_of(Feature("n", "int32")), Source(event_time=event_time))
    assert "\n" not in caught.value.message


# all problems in one run


def test_all_wrong_columns_of_a_file_are_named(tmp_path: Path) -> None:
    group = group_of(Feature("a", "int8"), Feature("b", "int8"), Feature("c", "string"))
    with pytest.raises(InvalidInput) as missing:
        open_file(tmp_path, {"product_id": ["1"], "x": [1], "c": ["c"]}, group)
    assert [line.split("'")[1] for line in missing.value.message.splitlines()] == ["a", "b", "x"]
    with pytest.raises(InvalidInput) as types:
        open_file(tmp_path, {"product_id": [1.5], "a": ["x"], "b": [1], "c": [1]}, group)
    assert [line.split("'")[1] for line in types.value.message.splitlines()] == [
        "product_id",
        "a",
        "c",
    ]


def test_all_wrong_rows_are_named_and_the_others_are_kept(tmp_path: Path) -> None:
    group = group_of(Feature("a", "int8"), Feature("b", "string"))
    count = BATCH_ROWS + 10
    columns = {
        "product_id": [str(i) for i in range(count)],
        "a": np.arange(count) % 100,
        "b": ["x"] * count,
        "event_time": np.full(count, NOW_MS),
    }
    columns["product_id"][5] = ""
    columns["a"][5] = 300
    columns["a"][BATCH_ROWS + 1] = -300
    columns["event_time"][7] = 1
    columns["b"][8] = "x" * (2 << 20)
    batches = list(open_file(tmp_path, columns, group).check(NOW_MS))
    problems = [(p.row, p.column) for batch in batches for p in batch.problems]
    assert sorted(problems, key=str) == [
        (5, "a"),
        (5, "product_id"),
        (7, "event_time"),
        (8, None),
        (BATCH_ROWS + 1, "a"),
    ]
    kept = [key for batch in batches for key in batch.keys.to_pylist()]
    wrong = {5, 7, 8, BATCH_ROWS + 1}
    assert kept == [str(i) for i in range(count) if i not in wrong]
    assert sum(batch.rejected for batch in batches) == len(wrong)


@pytest.mark.parametrize("done", [0, 1, BATCH_ROWS, BATCH_ROWS + 5, 2 * BATCH_ROWS])
def test_the_rows_that_are_done_are_left_out(tmp_path: Path, done: int) -> None:
    count = 2 * BATCH_ROWS
    columns = {"product_id": np.arange(count), "a": np.arange(count)}
    file = open_file(tmp_path, columns, group_of(Feature("a", "int32")))
    batches = [batch for batch, _ in file.blocks(NOW_MS, done)]
    assert [batch.start for batch in batches[:1]] == [done][: count - done]
    keys = [key for batch in batches for key in batch.keys.to_pylist()]
    assert keys == [str(i) for i in range(done, count)]
    assert [row for batch in batches for row in batch.row_numbers.tolist()] == [*range(done, count)]


def test_rows_of_csv_that_can_not_be_read_are_rejected(tmp_path: Path) -> None:
    path = tmp_path / "product.g.csv"
    path.write_bytes(b"product_id,a,b\n1,1,x\n2,2\n3,3,\xff\n4,x,y\n5,5,z\n")
    group = group_of(Feature("a", "int8"), Feature("b", "string"))
    (batch,) = opened(path, group).batches(NOW_MS)
    assert batch.keys.to_pylist() == ["1", "5"]
    assert batch.rejected == 3
    assert [(p.row, p.column) for p in batch.problems] == [(1, None), (2, "b"), (3, "a")]


def test_a_table_of_pandas_in_csv_is_read_without_its_index(tmp_path: Path) -> None:
    path = tmp_path / "product.g.csv"
    path.write_text(
        ",product_id,a,event_time\n"
        "0,a,1.0,2023-11-14 22:13:19.123456789\n"
        "1,b,,2023-11-14 22:13:19.000000000\n"
    )
    (batch,) = opened(path, group_of(Feature("a", "int32"))).batches(NOW_MS)
    assert batch.problems == []
    column = batch.columns["a"]
    assert isinstance(column, Column)
    assert column.nulls is not None
    assert (column.values.tolist(), column.nulls.tolist()) == ([1, 0], [False, True])
    assert batch.event_time_ms.tolist() == [NOW_MS - 877, NOW_MS - 1_000]


def test_an_empty_csv_file_has_no_rows(tmp_path: Path) -> None:
    path = tmp_path / "product.g.csv"
    path.touch()
    file = opened(path, group_of(Feature("a", "int32")))
    assert (file.rows, list(file.batches(NOW_MS))) == (0, [])


def test_a_file_knows_whether_it_has_changed(tmp_path: Path) -> None:
    columns = {"product_id": ["1"], "a": [1]}
    file = open_file(tmp_path, columns, group_of(Feature("a", "int8")))
    assert file.is_unchanged()
    (tmp_path / "product.g.parquet").write_bytes(b"")
    assert not file.is_unchanged()
