"""What all file formats offer: the schema of a table, and its rows in batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kirana.errors import InvalidInput, Unavailable
from kirana.ingest.arrow_types import is_text_dictionary
from kirana.ingest.storage import StoredFile

BATCH_ROWS = 8_192
"""The maximum number of rows in a batch."""

BATCH_BYTES = 4 << 20
"""The approximate limit of bytes in a batch. A batch with a single row may be larger."""


class TableFile(Protocol):
    """An open file."""

    @property
    def schema(self) -> pa.Schema:
        """The columns."""

    @property
    def rows(self) -> int | None:
        """The number of rows, or None if the file does not say it."""

    @property
    def is_text(self) -> bool:
        """Whether all values are text, because the format knows no types."""

    def batches(self, columns: Sequence[str], row_bytes: int) -> Iterator[pa.RecordBatch]:
        """Yield these columns in batches, the same ones at each call.

        A row has at least `row_bytes` in memory. Text may be bytes that are not valid UTF-8. Raise
        `InvalidInput` if the file is damaged, and `Unavailable` if it can't be read.
        """
        ...


@contextmanager
def reading(file: StoredFile, message: str) -> Iterator[None]:
    """Raise the errors of `TableFile` instead of Arrow's. `message` says what is wrong."""
    try:
        yield
    except OSError as error:
        # A local file that is damaged raises an OSError too.
        if not file.is_local:
            raise Unavailable(f"{file.name} can't be read: {error}") from error
        raise InvalidInput(f"{file.name} {message}: {error}") from None
    except pa.ArrowException as error:
        raise InvalidInput(f"{file.name} {message}: {error}") from None


def batch_rows(total_bytes: int, rows: int, row_bytes: int) -> int:
    """Return how many rows of a table with so many bytes and rows a batch may have."""
    return max(min(BATCH_ROWS, BATCH_BYTES // max(total_bytes // max(rows, 1), row_bytes, 1)), 1)


def decoded(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """Decode the dictionaries in a batch; yield its rows in smaller batches.

    A dictionary of text holds each distinct string once. After decoding, each row has its own copy.
    Each of the smaller batches has at most `BATCH_BYTES` of this text, unless it has a single row.
    """
    types = batch.schema.types
    positions = [i for i, type_ in enumerate(types) if pa.types.is_dictionary(type_)]
    sizes = np.zeros(len(batch), dtype=np.int64)
    for position in (i for i in positions if is_text_dictionary(types[i])):
        column = batch.column(position)
        lengths = pc.take(pc.binary_length(column.dictionary), column.indices)
        sizes += pc.fill_null(lengths, 0).to_numpy(zero_copy_only=False)
    ends = np.cumsum(sizes)
    start = 0
    while start < len(batch):
        limit = BATCH_BYTES + (int(ends[start - 1]) if start else 0)
        stop = max(int(np.searchsorted(ends, limit, side="right")), start + 1)
        rows = batch.slice(start, stop - start)
        for position in positions:
            rows = rows.set_column(
                position, batch.schema.names[position], rows.column(position).dictionary_decode()
            )
        yield rows
        start = stop
