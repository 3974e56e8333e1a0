"""Arrow's own files: the IPC file format (also called Feather), and the stream format."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import pyarrow as pa

from kirana.ingest.formats.base import TableBatch, batch_rows, decoded, numbered, reading
from kirana.ingest.source import Source
from kirana.storage.files import StoredFile

MAGIC = b"ARROW1"
"""The first bytes of a file. A stream has none."""


class ArrowTable:
    """An Arrow file or stream. See `TableFile`.

    One of the batches that it was written in is in memory at a time.
    """

    is_text = False
    rows: int | None = None

    def __init__(self, file: StoredFile, source: Source) -> None:
        self._file = file
        with ExitStack() as stack:
            self.schema: pa.Schema = self._open(stack, []).schema

    def _open(self, stack: ExitStack, columns: Sequence[str]) -> Any:
        """Return a reader of these columns, or of all if there are none, closed with `stack`."""
        with reading(self._file, "can't be read as an Arrow file"):
            source = stack.enter_context(self._file.filesystem.open_input_file(self._file.path))
            is_file = source.read(len(MAGIC)) == MAGIC
            source.seek(0)
            fields = [self.schema.get_field_index(name) for name in columns]
            options = pa.ipc.IpcReadOptions(included_fields=sorted(fields) or None)
            open_ = pa.ipc.open_file if is_file else pa.ipc.open_stream
            return stack.enter_context(open_(source, options=options))

    def batches(self, columns: Sequence[str], row_bytes: int) -> Iterator[TableBatch]:
        """Yield these columns in batches."""
        yield from numbered(self._batches(columns, row_bytes))

    def _batches(self, columns: Sequence[str], row_bytes: int) -> Iterator[pa.RecordBatch]:
        with ExitStack() as stack:
            reader = self._open(stack, columns)
            with reading(self._file, "is damaged"):
                for batch in _stored_batches(reader):
                    wanted = batch.select(columns)
                    rows = batch_rows(wanted.nbytes, len(wanted), row_bytes)
                    for start in range(0, len(wanted), rows):
                        yield from decoded(wanted.slice(start, rows))


def _stored_batches(reader: Any) -> Iterator[pa.RecordBatch]:
    if isinstance(reader, pa.ipc.RecordBatchFileReader):
        for position in range(reader.num_record_batches):
            yield reader.get_batch(position)
    else:
        yield from reader
