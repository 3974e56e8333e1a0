"""Parquet files as rows of a group: real files, column by column."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kirana.clock import FIRST_MICROSECONDS, LAST_SECONDS
from kirana.codecs import Column
from kirana.codecs.rows import Texts
from kirana.errors import InvalidInput
from kirana.ingest.parquet import BATCH_BYTES, BATCH_ROWS, FeatureBatch, ParquetFeatures, files_of
from kirana.schema import NUMERIC, Entity, Feature, FeatureGroup, Key, SchemaVersion

NOW_MS = 1_700_000_000_000
LATEST_MS = NOW_MS + 300_000
USER_GENRE = Entity("user_genre", (Key("user_id"), Key("genre_id", "int64")))
PRODUCT = Entity("product", (Key("product_id"),))


def group_of(*features: Feature, entity: Entity = PRODUCT) -> FeatureGroup:
    name = f"{entity.name}.g"
    return FeatureGroup(name, entity, 0, "packed", (SchemaVersion(name, 1, features),))


def open_file(folder: Path, columns: dict[str, Any], group: FeatureGroup) -> ParquetFeatures:
    path = folder / f"{group.name}.parquet"
    pq.write_table(pa.table(columns), path)
    return ParquetFeatures(path, group, group.current)


def check(file: ParquetFeatures) -> list[int]:
    return list(file.check(NOW_MS, LATEST_MS))


def read(folder: Path, columns: dict[str, Any], group: FeatureGroup) -> FeatureBatch:
    file = open_file(folder, columns, group)
    check(file)
    (batch,) = file.batches(NOW_MS)
    return batch


def read_one(folder: Path, feature: Feature, values: Any) -> Column:
    columns = {"product_id": [str(at) for at in range(len(values))], feature.name: values}
    found = read(folder, columns, group_of(feature)).columns[feature.name]
    return column_of(found) if isinstance(found, Texts) else found


def column_of(texts: Texts) -> Column:
    joined = texts.data.tobytes()
    places = zip(texts.starts.tolist(), texts.sizes.tolist(), strict=True)
    words = [joined[start : start + size].decode() for start, size in places]
    return Column(np.array(words, dtype=object), texts.nulls)


def refusal(folder: Path, columns: dict[str, Any], group: FeatureGroup) -> InvalidInput:
    with pytest.raises(InvalidInput, match=r"^product\.g\.parquet, column") as caught:
        check(open_file(folder, columns, group))
    return caught.value


def refuse_one(folder: Path, feature: Feature, values: Any) -> str | None:
    columns = {"product_id": [str(at) for at in range(len(values))], feature.name: values}
    return refusal(folder, columns, group_of(feature)).field


@pytest.mark.parametrize("dtype", NUMERIC)
def test_every_numeric_dtype_is_read_with_nulls(tmp_path: Path, dtype: str) -> None:
    values = pa.array([1, None, 3], pa.from_numpy_dtype(NUMERIC[dtype]))
    found = read_one(tmp_path, Feature("a", dtype), values)
    assert found.values.dtype == NUMERIC[dtype]
    assert found.values[[0, 2]].tolist() == [1, 3]
    assert found.nulls is not None
    assert found.nulls.tolist() == [False, True, False]


@pytest.mark.parametrize("type_", [pa.int8(), pa.uint16(), pa.int64(), pa.uint64(), pa.float64()])
def test_whole_numbers_of_any_width_fit_an_integer(tmp_path: Path, type_: pa.DataType) -> None:
    found = read_one(tmp_path, Feature("a", "int32"), pa.array([1, 100], type_))
    assert found.values.dtype == np.int32
    assert found.values.tolist() == [1, 100]
    assert found.nulls is None


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
def test_what_does_not_fit_is_refused_by_its_column(
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


def test_what_is_not_finite_stays_so(tmp_path: Path) -> None:
    values = pa.array([float("inf"), float("-inf"), float("nan")])
    found = read_one(tmp_path, Feature("a", "float32"), values).values.tolist()
    assert repr(found) == "[inf, -inf, nan]"


def test_a_float_may_lose_digits(tmp_path: Path) -> None:
    found = read_one(tmp_path, Feature("a", "float32"), pa.array([0.1]))
    assert found.values.tolist() == [float(np.float32(0.1))]


@pytest.mark.parametrize("values", [pa.array([0, 1]), pa.array([2.0]), pa.array(["true"])])
def test_only_booleans_are_booleans(tmp_path: Path, values: pa.Array) -> None:
    assert refuse_one(tmp_path, Feature("a", "bool"), values) == "a"


@pytest.mark.parametrize(
    "type_", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())]
)
def test_strings_of_any_type_of_arrow_are_read(tmp_path: Path, type_: pa.DataType) -> None:
    values = pa.array(["a", None, "", "é"]).cast(type_)
    found = read_one(tmp_path, Feature("a", "string"), values)
    assert found.values.tolist() == ["a", "", "", "é"]
    assert found.nulls is not None
    assert found.nulls.tolist() == [False, True, False, False]


def test_booleans_are_read_with_nulls(tmp_path: Path) -> None:
    found = read_one(tmp_path, Feature("a", "bool"), pa.array([True, None, False]))
    assert found.values.tolist() == [True, False, False]
    assert found.nulls is not None
    assert found.nulls.tolist() == [False, True, False]


@pytest.mark.parametrize(
    "type_",
    [pa.list_(pa.float64()), pa.large_list(pa.float32()), pa.list_(pa.int64(), 2)],
    ids=str,
)
def test_lists_are_vectors(tmp_path: Path, type_: pa.DataType) -> None:
    values = pa.array([[1, 2], None, [3, 4]], type_)
    found = read_one(tmp_path, Feature("a", "float32", (2,)), values)
    assert found.values.dtype == np.float32
    assert found.values.tolist() == [[1, 2], [0, 0], [3, 4]]
    assert found.nulls is not None
    assert found.nulls.tolist() == [False, True, False]


def test_lists_that_are_all_null_are_read(tmp_path: Path) -> None:
    values = pa.array([None, None], pa.list_(pa.float32()))
    found = read_one(tmp_path, Feature("a", "float16", (2,)), values)
    assert found.values.shape == (2, 2)
    assert found.nulls is not None
    assert found.nulls.tolist() == [True, True]


@pytest.mark.parametrize(
    "values",
    [[[1, 2], [3]], [[1, 2, 3]], [[]], [[1, None]], [1, 2], ["ab"], [[1, 300]], [[1, 2.5]]],
    ids=repr,
)
def test_a_list_that_is_no_such_vector_is_refused(tmp_path: Path, values: list[Any]) -> None:
    assert refuse_one(tmp_path, Feature("a", "int8", (2,)), pa.array(values)) == "a"


@pytest.mark.usefixtures("inmost_loops")
def test_keys_are_texts_in_their_order(tmp_path: Path) -> None:
    group = group_of(Feature("a", "int8"), entity=USER_GENRE)
    columns = {"genre_id": [1, 2], "a": [1, 2], "user_id": ["x|y", "z"]}
    assert read(tmp_path, columns, group).keys.to_pylist() == ["x\\|y|1", "z|2"]


@pytest.mark.usefixtures("inmost_loops")
def test_integer_keys_of_a_string_entity_are_their_decimals(tmp_path: Path) -> None:
    group = group_of(Feature("a", "int8"))
    assert read(tmp_path, {"product_id": [7, -8], "a": [1, 2]}, group).keys.to_pylist() == [
        "7",
        "-8",
    ]


@pytest.mark.usefixtures("inmost_loops")
@pytest.mark.parametrize(
    "keys", [["1", None], [1.5, 2.0], [True, False], ["", "1"], ["1", "x" * 500]]
)
def test_a_column_of_other_things_is_no_key(tmp_path: Path, keys: list[Any]) -> None:
    error = refusal(tmp_path, {"product_id": keys, "a": [1, 2]}, group_of(Feature("a", "int8")))
    assert error.field == "product_id"


def test_a_null_key_is_named_by_its_row_of_the_file(tmp_path: Path) -> None:
    keys: list[str | None] = [str(at) for at in range(BATCH_ROWS + 5)]
    keys[BATCH_ROWS + 3] = None
    columns = {"product_id": keys, "a": np.zeros(len(keys), dtype=np.int8)}
    error = refusal(tmp_path, columns, group_of(Feature("a", "int8")))
    assert f"row {BATCH_ROWS + 3} " in error.message


@pytest.mark.usefixtures("inmost_loops")
def test_a_large_file_comes_in_batches_of_all_rows(tmp_path: Path) -> None:
    count = 2 * BATCH_ROWS + 7
    columns = {"product_id": np.arange(count), "a": np.arange(count)}
    file = open_file(tmp_path, columns, group_of(Feature("a", "int32")))
    reported = check(file)
    assert file.rows == sum(reported) == count
    batches = list(file.batches(NOW_MS))
    assert [key for batch in batches for key in batch.keys.to_pylist()] == [
        str(at) for at in range(count)
    ]
    joined = np.concatenate([batch.columns["a"].values for batch in batches])
    assert joined.tolist() == list(range(count))


def test_a_file_without_rows_is_fine(tmp_path: Path) -> None:
    columns = {"product_id": pa.array([], pa.string()), "a": pa.array([], pa.int8())}
    file = open_file(tmp_path, columns, group_of(Feature("a", "int8")))
    check(file)
    assert file.rows == 0
    assert [key for batch in file.batches(NOW_MS) for key in batch.keys.to_pylist()] == []


TEXT_TYPES = [
    *(pa.string(), pa.large_string(), pa.string_view()),
    *(pa.binary(), pa.large_binary(), pa.binary_view()),
    *(pa.dictionary(pa.int32(), each) for each in (pa.string(), pa.binary(), pa.large_string())),
]
each_text_type = pytest.mark.parametrize("kind", TEXT_TYPES, ids=str)


@pytest.mark.usefixtures("inmost_loops")
@each_text_type
def test_a_long_string_of_many_rows_comes_in_small_batches(tmp_path: Path, kind: Any) -> None:
    """It is in the file once: the file's bytes say nothing of what its rows take."""
    texts = ["x" * 300_000, "short", None] * 50
    columns = {"product_id": np.arange(len(texts)), "a": pa.array(texts, kind)}
    file = open_file(tmp_path, columns, group_of(Feature("a", "string")))
    assert file.path.stat().st_size < 20_000
    assert sum(check(file)) == len(texts)
    found: list[str | None] = []
    for batch in file.batches(NOW_MS):
        column = batch.columns["a"]
        assert isinstance(column, Texts)
        assert column.sizes.sum() <= BATCH_BYTES
        nulls = np.zeros(len(column.sizes), np.bool_) if column.nulls is None else column.nulls
        values = column_of(column).values.tolist()
        found += [None if null else v for v, null in zip(values, nulls, strict=True)]
    assert found == texts


@pytest.mark.usefixtures("inmost_loops")
def test_numbers_that_take_few_bytes_in_the_file_come_in_small_batches(tmp_path: Path) -> None:
    count, width = 200, 50_000
    flat = pa.array(np.zeros(count * width, np.float32))
    columns = {"product_id": np.arange(count), "a": pa.FixedSizeListArray.from_arrays(flat, width)}
    group = group_of(Feature("a", "float32", (width,)))
    file = open_file(tmp_path, columns, group)
    assert file.path.stat().st_size < 1_000_000
    for batch in file.batches(NOW_MS):
        column = batch.columns["a"]
        assert isinstance(column, Column)
        assert column.values.nbytes <= BATCH_BYTES


@pytest.mark.usefixtures("inmost_loops")
@each_text_type
def test_a_key_may_be_of_any_kind_of_text(tmp_path: Path, kind: Any) -> None:
    keys = pa.array([b"1", "é".encode(), b"a|b"], pa.binary()).view(pa.string()).cast(kind)
    found = read(tmp_path, {"product_id": keys, "a": [1, 2, 3]}, group_of(Feature("a", "int8")))
    assert found.keys.to_pylist() == ["1", "é", "a\\|b"]


@pytest.mark.parametrize("wrong", [b"\xff\xfe", b"\xff|\xfe", b"\xed\xa0\x80"])
@pytest.mark.parametrize("kind", [pa.binary(), pa.string()])
@pytest.mark.parametrize("name", ["product_id", "a"])
def test_bytes_that_are_no_text_are_refused(
    tmp_path: Path, wrong: bytes, kind: Any, name: str
) -> None:
    texts = pa.array([b"1", wrong], pa.binary()).view(kind)
    columns = {"product_id": ["1", "2"], "a": ["x", "y"], name: texts}
    error = refusal(tmp_path, columns, group_of(Feature("a", "string")))
    assert error.field == name
    assert "this is not text, from row 0 on" in error.message


@pytest.mark.parametrize(
    "values", [[1, 2], [True, False], [[1], [2]], [datetime.datetime(2026, 1, 1)] * 2]
)
def test_what_is_no_text_is_refused_as_one(tmp_path: Path, values: Any) -> None:
    assert refuse_one(tmp_path, Feature("a", "string"), values) == "a"


@pytest.mark.parametrize("dtype", ["string", "bool", "int32", "float16"])
@pytest.mark.parametrize("shape", [(), (2,)])
def test_a_column_without_any_value_is_all_nulls(
    tmp_path: Path, dtype: str, shape: tuple[int, ...]
) -> None:
    if shape and dtype in ("string", "bool"):
        return
    found = read_one(tmp_path, Feature("a", dtype, shape), pa.nulls(3))
    assert found.nulls is not None
    assert found.nulls.tolist() == [True] * 3
    assert found.values.shape == (3, *shape)


def test_a_page_that_is_not_what_was_written_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "product.g.parquet"
    columns = {"product_id": np.arange(1000), "a": np.arange(1000, dtype=np.int32)}
    plain = {"use_dictionary": False, "compression": "none", "write_page_checksum": True}
    pq.write_table(pa.table(columns), path, **plain)
    content = bytearray(path.read_bytes())
    content[content.index(np.arange(500, 504, dtype=np.int32).tobytes())] ^= 1
    path.write_bytes(content)
    group = group_of(Feature("a", "int32"))
    with pytest.raises(InvalidInput, match=r"product\.g\.parquet is damaged"):
        check(ParquetFeatures(path, group, group.current))


# columns


@pytest.mark.parametrize("missing", ["product_id", "clicks"])
def test_a_missing_column_is_refused_at_once(tmp_path: Path, missing: str) -> None:
    columns = {"product_id": ["1"], "clicks": [1]}
    columns[f"{missing}s"] = columns.pop(missing)
    with pytest.raises(InvalidInput, match=f"missing: did you mean '{missing}s'") as caught:
        open_file(tmp_path, columns, group_of(Feature("clicks", "int32")))
    assert caught.value.field == missing


def test_a_column_too_many_is_refused_at_once(tmp_path: Path) -> None:
    columns = {"product_id": ["1"], "clicks": [1], "click": [2]}
    with pytest.raises(InvalidInput, match="did you mean 'clicks'") as caught:
        open_file(tmp_path, columns, group_of(Feature("clicks", "int32")))
    assert caught.value.field == "click"


def test_a_column_that_stands_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "product.g.parquet"
    arrays = [pa.array(["1"]), pa.array([1]), pa.array([2])]
    pq.write_table(pa.Table.from_arrays(arrays, ["product_id", "a", "a"]), path)
    group = group_of(Feature("a", "int32"))
    with pytest.raises(InvalidInput) as caught:
        check(ParquetFeatures(path, group, group.current))
    assert caught.value.field == "a"


@pytest.mark.parametrize("content", [b"", b"product_id,a\n1,2\n", b"PAR1" * 5])
def test_what_is_no_parquet_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "product.g.parquet"
    path.write_bytes(content)
    group = group_of(Feature("a", "int32"))
    with pytest.raises(InvalidInput, match=r"product\.g\.parquet"):
        ParquetFeatures(path, group, group.current)


def test_a_file_damaged_in_its_middle_is_refused(tmp_path: Path) -> None:
    group = group_of(Feature("a", "int32"))
    file = open_file(tmp_path, {"product_id": np.arange(1000), "a": np.arange(1000)}, group)
    content = bytearray(file.path.read_bytes())
    content[4:2000] = bytes(1996)
    file.path.write_bytes(content)
    damaged = ParquetFeatures(file.path, group, group.current)
    with pytest.raises(InvalidInput, match=r"product\.g\.parquet"):
        check(damaged)


# event times


def times_of(folder: Path, times: Any) -> list[int]:
    columns = {
        "product_id": [str(at) for at in range(len(times))],
        "a": np.zeros(len(times), dtype=np.int8),
        "event_time": times,
    }
    found = read(folder, columns, group_of(Feature("a", "int8"))).event_time_ms
    assert found.dtype == np.uint64
    return [int(time) for time in found]


def refuse_time(folder: Path, times: Any) -> str:
    columns = {
        "product_id": [str(at) for at in range(len(times))],
        "a": np.zeros(len(times), dtype=np.int8),
        "event_time": times,
    }
    error = refusal(folder, columns, group_of(Feature("a", "int8")))
    assert error.field == "event_time"
    return error.message


def test_rows_without_an_event_time_are_of_now(tmp_path: Path) -> None:
    batch = read(tmp_path, {"product_id": ["1"], "a": [1]}, group_of(Feature("a", "int8")))
    assert batch.event_time_ms.tolist() == [NOW_MS]


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "Asia/Kolkata"])
def test_timestamps_of_any_unit_and_zone_are_moments(
    tmp_path: Path, unit: str, zone: str | None
) -> None:
    moment = datetime.datetime(2023, 11, 14, 22, 13, 19, tzinfo=datetime.UTC)
    times = pa.array([moment], pa.timestamp("us", "UTC")).cast(pa.timestamp(unit, zone))
    assert times_of(tmp_path, times) == [NOW_MS - 1_000]


def test_parts_of_a_millisecond_are_cut(tmp_path: Path) -> None:
    assert times_of(tmp_path, pa.array([1_999], pa.timestamp("us"))) == [1]


@pytest.mark.parametrize("type_", [pa.int64(), pa.uint64(), pa.float64()])
def test_whole_numbers_are_milliseconds(tmp_path: Path, type_: pa.DataType) -> None:
    assert times_of(tmp_path, pa.array([NOW_MS, 0], type_)) == [NOW_MS, 0]


@pytest.mark.parametrize("type_", [pa.int64(), pa.uint64(), pa.float64()])
@pytest.mark.parametrize(
    ("sent", "unit", "meant"),
    [
        (1, "seconds", 1_000),
        (LAST_SECONDS, "seconds", 10**14),
        (FIRST_MICROSECONDS + 1, "microseconds", 10**11),
        (NOW_MS * 1_000, "microseconds", NOW_MS),
        (NOW_MS * 1_000_000, "nanoseconds", NOW_MS),
    ],
)
def test_a_whole_number_of_another_unit_is_refused_with_its_row(
    tmp_path: Path, type_: pa.DataType, sent: int, unit: str, meant: int
) -> None:
    times = pa.array([NOW_MS, 0, sent, sent]).cast(type_, safe=False)
    message = refuse_time(tmp_path, times)
    assert f"row 2: {sent} looks like {unit}: send milliseconds, {meant}" in message


def test_a_time_of_another_unit_is_named_by_its_row_of_the_file(tmp_path: Path) -> None:
    times = np.full(BATCH_ROWS + 5, NOW_MS)
    times[BATCH_ROWS + 3] = NOW_MS // 1_000
    assert f"row {BATCH_ROWS + 3}: " in refuse_time(tmp_path, times)


def test_the_first_whole_number_that_can_be_meant_in_milliseconds_is_read(tmp_path: Path) -> None:
    assert times_of(tmp_path, [LAST_SECONDS + 1, 0]) == [LAST_SECONDS + 1, 0]
    # it can be meant so, but is of the future
    assert "ahead" in refuse_time(tmp_path, [FIRST_MICROSECONDS])


@pytest.mark.parametrize("unit", ["s", "ms"])
@pytest.mark.parametrize("at", [1, LAST_SECONDS // 1_000])
def test_a_timestamp_says_its_unit_however_early_it_is(tmp_path: Path, unit: str, at: int) -> None:
    wanted = at * 1_000 if unit == "s" else at
    assert times_of(tmp_path, pa.array([at], pa.timestamp(unit))) == [wanted]


def test_five_minutes_ahead_is_the_most(tmp_path: Path) -> None:
    assert times_of(tmp_path, [LATEST_MS]) == [LATEST_MS]
    assert "ahead" in refuse_time(tmp_path, [NOW_MS, LATEST_MS + 1])


@pytest.mark.parametrize(
    "times",
    [
        [-1],
        [NOW_MS, None],
        ["2023-01-01"],
        [1.5],
        [datetime.date(2023, 1, 1)],
        pa.array([-1], pa.timestamp("s")),
    ],
    ids=str,
)
def test_other_times_are_refused(tmp_path: Path, times: Any) -> None:
    refuse_time(tmp_path, times)


# files and folders


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_a_file_is_of_the_group_of_its_name(tmp_path: Path) -> None:
    path = tmp_path / "product.stats.parquet"
    touch(path)
    assert files_of([path], None) == [("product.stats", path)]


@pytest.mark.parametrize(
    "name",
    [
        "part-0.parquet",
        "part-00000-5c2b-c000.snappy.parquet",
        "2024.01.02.parquet",
    ],
)
def test_every_file_of_a_folder_is_of_the_group_of_its_name(tmp_path: Path, name: str) -> None:
    path = tmp_path / "product.stats" / name
    touch(path)
    assert files_of([tmp_path], None) == [("product.stats", path)]
    assert files_of([path.parent], None) == [("product.stats", path)]


def test_a_folder_of_files_and_folders_is_walked(tmp_path: Path) -> None:
    one, two = tmp_path / "product.stats" / "a.parquet", tmp_path / "user.profile.parquet"
    touch(one, two, tmp_path / "README.md", tmp_path / "product.stats" / "_SUCCESS")
    assert files_of([tmp_path], None) == [("product.stats", one), ("user.profile", two)]


def test_a_given_group_is_that_of_all_files(tmp_path: Path) -> None:
    one, two = tmp_path / "a.parquet", tmp_path / "b.c.parquet"
    touch(one, two)
    assert files_of([one, two], "product.stats") == [("product.stats", one), ("product.stats", two)]


def test_a_path_without_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no file"):
        files_of([tmp_path / "nowhere.parquet"], None)
    with pytest.raises(InvalidInput, match=r"no \*\.parquet"):
        files_of([tmp_path], None)
