"""Parquet files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from kirana.codecs.arrow_types import is_text
from kirana.ingest.formats.base import TableBatch, batch_rows, decoded, numbered, reading
from kirana.ingest.source import Source
from kirana.storage.files import StoredFile


class ParquetTable:
    """A Parquet file. See `TableFile`."""

    is_text = False

    def __init__(self, file: StoredFile, source: Source) -> None:
        self._file = file
        parquet = self._open([])
        self.schema: pa.Schema = parquet.schema_arrow
        self.rows: int = parquet.metadata.num_rows
        groups = range(parquet.metadata.num_row_groups)
        self._bytes = sum(parquet.metadata.row_group(i).total_byte_size for i in groups)

    def _open(self, dictionaries: list[str]) -> pq.ParquetFile:
        """Open the file. The columns named in `dictionaries` are read as Arrow dictionaries."""
        with reading(self._file, "can't be read as Parquet"):
            return pq.ParquetFile(
                self._file.path,
                filesystem=self._file.filesystem,
                read_dictionary=dictionaries,
                page_checksum_verification=True,
                # Object storage answers slowly, so a few large requests are better than many.
                pre_buffer=not self._file.is_local,
            )

    def batches(self, columns: Sequence[str], row_bytes: int) -> Iterator[TableBatch]:
        """Yield these columns in batches."""
        yield from numbered(self._batches(columns, row_bytes))

    def _batches(self, columns: Sequence[str], row_bytes: int) -> Iterator[pa.RecordBatch]:
        # The size of a row is estimated from the bytes in the file. A file may encode equal values
        # in few bytes, so numbers count with `row_bytes`, and text is read as a dictionary.
        rows = batch_rows(self._bytes, self.rows, row_bytes)
        texts = [name for name in columns if is_text(self.schema.field(name).type)]
        with self._open(texts) as file, reading(self._file, "is damaged"):
            for batch in file.iter_batches(batch_size=rows, columns=list(columns)):
                yield from decoded(batch)
