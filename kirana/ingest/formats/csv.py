"""CSV files with a header.

All values are text. An empty field without quotes is a missing value.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import csv

from kirana.errors import InvalidInput, shortened
from kirana.ingest.formats.base import BATCH_BYTES, TableBatch, batch_rows, reading
from kirana.ingest.source import NO_ESCAPE, Source
from kirana.storage.files import StoredFile


class CsvTable:
    """A CSV file, which may be compressed. See `TableFile`.

    The delimiter, and the character that escapes a quote, are those of `source`.
    """

    is_text = True

    def __init__(self, file: StoredFile, source: Source) -> None:
        self._file = file
        self._source = source
        self.rows: int | None = None
        try:
            with (
                self._open(_Stream(self._input()), []) as reader,
                reading(file, "has a wrong header"),
            ):
                names = reader.schema.names
        except InvalidInput as error:
            if "Empty CSV file" not in error.message:
                raise
            names, self.rows = [], 0
        self.schema = pa.schema([(name, pa.binary()) for name in names])

    def _input(self) -> Any:
        with reading(self._file, "can't be read as CSV"):
            return self._file.filesystem.open_input_stream(self._file.path)

    def _open(
        self, stream: _Stream, columns: Sequence[str], on_wrong_row: Any = None
    ) -> csv.CSVStreamingReader:
        """Open the file, to read these columns, or all if there are none, as bytes."""
        escape = self._source.csv_escape
        with reading(self._file, "can't be read as CSV"):
            return csv.open_csv(
                pa.PythonFile(stream, mode="r"),
                # Only one thread knows the numbers of rows.
                read_options=csv.ReadOptions(block_size=BATCH_BYTES, use_threads=False),
                parse_options=csv.ParseOptions(
                    delimiter=self._source.csv_delimiter,
                    escape_char=False if escape in (None, NO_ESCAPE) else escape,
                    newlines_in_values=True,
                    invalid_row_handler=on_wrong_row or (lambda row: "skip"),
                ),
                convert_options=csv.ConvertOptions(
                    include_columns=columns,
                    column_types=dict.fromkeys(columns, pa.binary()),
                    null_values=[""],
                    strings_can_be_null=True,
                    quoted_strings_can_be_null=False,
                ),
            )

    def batches(self, columns: Sequence[str], row_bytes: int) -> Iterator[TableBatch]:
        """Yield these columns in batches."""
        if not self.schema.names:
            return
        wrong: list[tuple[int, str]] = []

        def skip(row: csv.InvalidRow) -> str:
            reason = f"has {row.actual_columns} fields instead of {row.expected_columns}"
            # Rows of the file count from 1, and the first is the header.
            wrong.append((row.number - 2, f"{reason}: {shortened(row.text)}"))
            return "skip"

        stream = _Stream(self._input())
        start = reported = 0
        with self._open(stream, columns, skip) as reader, reading(self._file, "is damaged"):
            for block in reader:
                rows = batch_rows(block.nbytes, len(block), row_bytes)
                for offset in range(0, len(block), rows):
                    part = block.slice(offset, rows)
                    numbers = _numbers(start, start + len(part), [number for number, _ in wrong])
                    yield TableBatch(part, numbers, wrong[reported:])
                    reported = len(wrong)
                    start += len(part)
        if len(wrong) > reported:
            nothing = pa.record_batch({name: pa.array([], pa.binary()) for name in columns})
            yield TableBatch(nothing, np.zeros(0, np.int64), wrong[reported:])
        self._check_quotes(stream)

    def _check_quotes(self, stream: _Stream) -> None:
        """Raise `InvalidInput` if the quotes of a file that was read do not tell where fields end.

        Arrow reads such a file without an error, but with wrong rows.
        """
        escape = self._source.csv_escape
        if escape is None and stream.escaped_quotes:
            raise InvalidInput(
                'has a backslash before a quote (\\"). Say whether it escapes the quote, as Spark '
                "writes it: --csv-escape '\\', or --csv-escape none"
            )
        if escape in (None, NO_ESCAPE) and stream.quotes % 2:
            raise InvalidInput("has a quote that is not closed: the number of quotes is odd")


class _Stream(io.RawIOBase):
    """A stream that counts the quotes that are read from it, and ends with the end of a line.

    Arrow does not read a header without the end of its line.
    """

    def __init__(self, source: Any) -> None:
        self._source = source
        self._last = b""
        self.quotes = 0
        self.escaped_quotes = 0

    def read(self, size: int = -1) -> bytes:
        data: bytes = self._source.read(None if size < 0 else size)
        if not data and self._last not in (b"", b"\n", b"\r"):
            data = b"\n"
        self.quotes += data.count(b'"')
        self.escaped_quotes += (self._last + data).count(b'\\"')
        self._last = data[-1:] or self._last
        return data

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        self._source.close()
        super().close()


def _numbers(start: int, stop: int, wrong: Sequence[int]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return the numbers of the readable rows from `start` to `stop`.

    `wrong` are the numbers of all rows before them, and maybe of later ones, that are left out.
    """
    positions = np.arange(start, stop)
    # The number of readable rows before each wrong row.
    before = np.asarray(wrong, np.int64) - np.arange(len(wrong))
    return positions + np.searchsorted(before, positions, side="right")
