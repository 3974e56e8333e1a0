"""Arrow's own files: the IPC file format (also called Feather), and the stream format."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import pyarrow as pa

from kirana.ingest.formats.base import batch_rows, decoded, reading
from kirana.ingest.storage import StoredFile

MAGIC = b"ARROW1"
"""The first bytes of a file. A stream has none."""


class ArrowTable:
    """An Arrow file or stream. See `TableFile`. Its batches are in memory one at a time."""

    is_text = False
    rows: int | None = None

    def __init__(self, file: StoredFile) -> None:
        self._file = file
        with ExitStack() as stack:
            self.schema: pa.Schema = self._open(stack).schema

    def _open(self, stack: ExitStack) -> Any:
        """Return a reader of the file, which is closed with `stack`."""
        with reading(self._file, "can't be read as an Arrow file"):
            source = stack.enter_context(self._file.filesystem.open_input_file(self._file.path))
            is_file = source.read(len(MAGIC)) == MAGIC
            source.seek(0)
            opened = pa.ipc.open_file(source) if is_file else pa.ipc.open_stream(source)
            return stack.enter_context(opened)

    def batches(self, columns: Sequence[str], row_bytes: int) -> Iterator[pa.RecordBatch]:
        """Yield these columns in batches."""
        with ExitStack() as stack:
            reader = self._open(stack)
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
