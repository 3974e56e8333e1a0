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


def opened(path: Path) -> TableFile:
    (source,) = source_files([str(path)], "product.stats")
    return open_table(source.stored, source.format)


def written(folder: Path, kind: str, table: pa.Table) -> TableFile:
    end, write = FORMATS[kind]
    path = folder / f"product.stats.{end}"
    write(table, path)
    return opened(path)


def rows_of(file: TableFile, *columns: str) -> list[dict[str, Any]]:
    return [row for batch in file.batches(columns, 1) for row in batch.to_pylist()]


@each_format
def test_the_wanted_columns_are_read(tmp_path: Path, kind: str) -> None:
    table = pa.table({"a": ["x", "y"], "b": [1, 2], "stats.c": [0.5, 1.5]})
    file = written(tmp_path, kind, table)
    assert file.schema.names == ["a", "b", "stats.c"]
    assert file.rows == (2 if kind == "parquet" else None)
    expected = [{"stats.c": 0.5, "a": "x"}, {"stats.c": 1.5, "a": "y"}]
    if file.is_text:
        expected = [{**row, "stats.c": str(row["stats.c"])} for row in expected]
    assert rows_of(file, "stats.c", "a") == expected


@each_format
def test_all_rows_are_read_in_the_same_small_batches_each_time(tmp_path: Path, kind: str) -> None:
    count = 3 * BATCH_ROWS + 7
    file = written(tmp_path, kind, pa.table({"a": np.arange(count), "b": ["x" * 100] * count}))
    sizes = [len(batch) for batch in file.batches(["a", "b"], 1)]
    assert sum(sizes) == count
    assert max(sizes) <= BATCH_ROWS
    assert [len(batch) for batch in file.batches(["a", "b"], 1)] == sizes
    wide = [len(batch) for batch in file.batches(["a"], BATCH_BYTES // 10)]
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
        {"a": "007", "b": None},
        {"a": 'x, "y"\nz', "b": ""},
        {"a": "NULL", "b": "nan"},
    ]


@pytest.mark.parametrize("end", ["parquet", "csv", "arrow"])
@pytest.mark.parametrize("content", [b"", b"ARROW1" * 5, b"PAR1" * 5])
def test_a_file_of_another_format_is_refused(tmp_path: Path, end: str, content: bytes) -> None:
    path = tmp_path / f"product.stats.{end}"
    path.write_bytes(content)
    with pytest.raises(InvalidInput, match=rf"product\.stats\.{end} can't be read as"):
        rows_of(opened(path), "a")


@pytest.mark.parametrize("end", ["csv", "arrow"])
def test_a_file_damaged_in_its_middle_is_refused(tmp_path: Path, end: str) -> None:
    path = tmp_path / f"product.stats.{end}"
    table = pa.table({"a": np.arange(200_000)})
    if end == "csv":
        csv.write_csv(table, path)
        path.write_bytes(path.read_bytes() + b"1,2,3\n")
    else:
        feather.write_feather(table, path, compression="lz4")
        content = bytearray(path.read_bytes())
        content[2_000:200_000] = bytes(198_000)
        path.write_bytes(content)
    with pytest.raises(InvalidInput, match=rf"product\.stats\.{end} "):
        rows_of(opened(path), "a")
