"""Tables in Parquet, CSV and Arrow files."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import csv, feather

from kirana.errors import InvalidInput
from kirana.ingest.files import source_files
from kirana.ingest.formats import open_table
from kirana.ingest.formats.base import BATCH_BYTES, BATCH_ROWS, TableFile
from kirana.ingest.source import NO_ESCAPE, Source

Write = Callable[[pa.Table, Path], Any]


def write_stream(table: pa.Table, path: Path) -> None:
    with pa.ipc.new_stream(path, table.schema) as writer:
        writer.write_table(table)


def write_gzip(table: pa.Table, path: Path) -> None:
    with gzip.open(path, "wb") as file:
        csv.write_csv(table, file)


FORMATS: dict[str, tuple[str, Write]] = {
    "parquet": ("parquet", pq.write_table),
    "csv": ("csv", csv.write_csv),
    "csv.gz": ("csv.gz", write_gzip),
    "arrow file": ("arrow", lambda table, path: feather.write_feather(table, path)),
    "arrow stream": ("arrow", write_stream),
}
each_format = pytest.mark.parametrize("kind", FORMATS)


def opened(path: Path, **csv: Any) -> TableFile:
    ((file,), _) = source_files([str(path)], "product.stats")
    return open_table(file.stored, file.format, Source(**csv))


def written(folder: Path, kind: str, table: pa.Table) -> TableFile:
    end, write = FORMATS[kind]
    path = folder / f"product.stats.{end}"
    write(table, path)
    return opened(path)


def rows_of(file: TableFile, *columns: str) -> list[dict[str, Any]]:
    return [row for batch in file.batches(columns, 1) for row in batch.rows.to_pylist()]


@each_format
def test_the_wanted_columns_are_read(tmp_path: Path, kind: str) -> None:
    table = pa.table({"a": ["x", "y"], "b": [1, 2], "stats.c": [0.5, 1.5]})
    file = written(tmp_path, kind, table)
    assert file.schema.names == ["a", "b", "stats.c"]
    assert file.rows == (2 if kind == "parquet" else None)
    expected = [{"stats.c": 0.5, "a": "x"}, {"stats.c": 1.5, "a": "y"}]
    if file.is_text:
        expected = [{name: str(value).encode() for name, value in row.items()} for row in expected]
    assert rows_of(file, "stats.c", "a") == expected


@each_format
def test_all_rows_are_read_in_the_same_small_batches_each_time(tmp_path: Path, kind: str) -> None:
    count = 3 * BATCH_ROWS + 7
    file = written(tmp_path, kind, pa.table({"a": np.arange(count), "b": ["x" * 100] * count}))
    sizes = [len(batch.rows) for batch in file.batches(["a", "b"], 1)]
    assert sum(sizes) == count
    assert max(sizes) <= BATCH_ROWS
    assert [len(batch.rows) for batch in file.batches(["a", "b"], 1)] == sizes
    wide = [len(batch.rows) for batch in file.batches(["a"], BATCH_BYTES // 10)]
    assert max(wide) == 10


@each_format
def test_a_table_without_rows_has_columns(tmp_path: Path, kind: str) -> None:
    file = written(tmp_path, kind, pa.table({"a": pa.array([], pa.string())}))
    assert file.schema.names == ["a"]
    assert rows_of(file, "a") == []


@pytest.mark.parametrize("kind", ["parquet", "arrow file"])
def test_dictionaries_are_decoded(tmp_path: Path, kind: str) -> None:
    texts = pa.array(["x", None, "x"]).dictionary_encode()
    numbers = pa.array([7, 8, None]).dictionary_encode()
    file = written(tmp_path, kind, pa.table({"a": texts, "b": numbers}))
    assert rows_of(file, "a", "b") == [
        {"a": "x", "b": 7},
        {"a": None, "b": 8},
        {"a": "x", "b": None},
    ]


def test_values_of_csv_are_text_and_only_empty_fields_are_missing(tmp_path: Path) -> None:
    path = tmp_path / "product.stats.csv"
    path.write_text('a,b\n007,\n"x, ""y""\nz",""\nNULL,nan\n')
    assert rows_of(opened(path), "a", "b") == [
        {"a": b"007", "b": None},
        {"a": b'x, "y"\nz', "b": b""},
        {"a": b"NULL", "b": b"nan"},
    ]


@pytest.mark.parametrize(
    ("content", "rows"),
    [
        ("\ufeffa,b\r\n1,2\r\n", [(b"1", b"2")]),
        ("a,b\n1,2", [(b"1", b"2")]),
        ("a,b", []),
        ("", []),
        ('a,b\n1,"say ""hi"", you"\n', [(b"1", b'say "hi", you')]),
    ],
)
def test_csv_may_be_written_in_many_ways(
    tmp_path: Path, content: str, rows: list[tuple[bytes, bytes]]
) -> None:
    path = tmp_path / "product.stats.csv"
    path.write_text(content)
    assert [tuple(row.values()) for row in rows_of(opened(path), "a", "b")] == rows


def test_csv_may_have_another_delimiter_and_escaped_quotes(tmp_path: Path) -> None:
    path = tmp_path / "product.stats.csv"
    path.write_text('a;b\n1;"say \\"hi; you\\""\n')
    escaped = opened(path, csv_delimiter=";", csv_escape="\\")
    assert rows_of(escaped, "b") == [{"b": b'say "hi; you"'}]
    with pytest.raises(InvalidInput, match=r"has a backslash before a quote .*--csv-escape"):
        rows_of(opened(path, csv_delimiter=";"), "b")
    path.write_text('a\n"C:\\"\n')
    assert rows_of(opened(path, csv_escape=NO_ESCAPE), "a") == [{"a": b"C:\\"}]


@pytest.mark.parametrize("content", ['a,b\n1,"x\n2,y\n3,z\n', 'a,b\n1,5" screen\n'])
def test_a_quote_that_is_not_closed_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "product.stats.csv"
    path.write_text(content)
    with pytest.raises(InvalidInput, match="has a quote that is not closed"):
        rows_of(opened(path), "a", "b")


def test_rows_with_another_number_of_fields_are_left_out_and_numbered(tmp_path: Path) -> None:
    path = tmp_path / "product.stats.csv"
    lines = [f"{i},x" for i in range(3 * BATCH_ROWS)]
    lines[0], lines[5], lines[BATCH_ROWS + 9] = "0", "5,x,x", "9"
    path.write_text("\n".join(["a,b", *lines, "1,2,3", ""]))
    batches = list(opened(path).batches(["a"], 1))
    unreadable = [row for batch in batches for row in batch.unreadable]
    assert [number for number, _ in unreadable] == [0, 5, BATCH_ROWS + 9, 3 * BATCH_ROWS]
    assert unreadable[1][1] == "has 3 fields instead of 2: 5,x,x"
    for batch in batches:
        assert [int(value) for value in batch.rows.column(0).to_pylist()] == batch.numbers.tolist()


@pytest.mark.parametrize("kind", [pa.string_view(), pa.binary_view()], ids=str)
def test_views_are_read_as_text(tmp_path: Path, kind: Any) -> None:
    texts = pa.array(["x", None], pa.string()).cast(kind)
    indices = pa.array([0, 1], pa.int8())
    table = pa.table({"a": texts, "b": pa.DictionaryArray.from_arrays(indices, texts)})
    first, second = rows_of(written(tmp_path, "arrow stream", table), "a", "b")
    assert {*first.values()} == {"x" if kind == pa.string_view() else b"x"}
    assert {*second.values()} == {None}


@pytest.mark.parametrize(
    ("end", "content"),
    [
        *(("parquet", content) for content in (b"", b"PAR1" * 5, b"a,b\n1,2\n")),
        *(("arrow", content) for content in (b"", b"ARROW1" * 5, b"a,b\n1,2\n")),
        ("csv", b"\xff,a\n1,2\n"),
    ],
)
def test_a_file_of_another_format_is_refused(tmp_path: Path, end: str, content: bytes) -> None:
    path = tmp_path / f"product.stats.{end}"
    path.write_bytes(content)
    with pytest.raises(InvalidInput, match=r"can't be read as|has a wrong header"):
        rows_of(opened(path), "a")


def test_a_file_damaged_in_its_middle_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "product.stats.arrow"
    feather.write_feather(pa.table({"a": np.arange(200_000)}), path, compression="lz4")
    content = bytearray(path.read_bytes())
    content[2_000:200_000] = bytes(198_000)
    path.write_bytes(content)
    with pytest.raises(InvalidInput, match="is damaged"):
        rows_of(opened(path), "a")
