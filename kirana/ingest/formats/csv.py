"""CSV files with a header.

All values are text. An empty field without quotes is a missing value.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa
from pyarrow import csv

from kirana.ingest.formats.base import BATCH_BYTES, batch_rows, reading
from kirana.ingest.storage import StoredFile


class CsvTable:
    """A CSV file, which may be compressed. See `TableFile`."""

    is_text = True
    rows: int | None = None

    def __init__(self, file: StoredFile) -> None:
        self._file = file
        with self._open([]) as reader:
            names = reader.schema.names
        self.schema = pa.schema([(name, pa.string()) for name in names])

    def _open(self, columns: Sequence[str]) -> csv.CSVStreamingReader:
        """Open the file, to read these columns, or all if there are none, as text."""
        with reading(self._file, "can't be read as CSV"):
            stream = self._file.filesystem.open_input_stream(self._file.path)
            return csv.open_csv(
                stream,
                read_options=csv.ReadOptions(block_size=BATCH_BYTES),
                parse_options=csv.ParseOptions(newlines_in_values=True),
                convert_options=csv.ConvertOptions(
                    include_columns=columns,
                    column_types=dict.fromkeys(columns, pa.string()),
                    null_values=[""],
                    strings_can_be_null=True,
                    quoted_strings_can_be_null=False,
                ),
            )

    def batches(self, columns: Sequence[str], row_bytes: int) -> Iterator[pa.RecordBatch]:
        """Yield these columns in batches."""
        with self._open(columns) as reader, reading(self._file, "is damaged"):
            for block in reader:
                rows = batch_rows(block.nbytes, len(block), row_bytes)
                for start in range(0, len(block), rows):
                    yield block.slice(start, rows)
