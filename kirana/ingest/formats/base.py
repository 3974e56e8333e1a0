"""What all file formats offer: the schema of a table, and its rows in batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from kirana.codecs.arrow_types import is_text_dictionary, is_view
from kirana.errors import InvalidInput, Unavailable
from kirana.storage.files import StoredFile

BATCH_ROWS = 8_192
"""The maximum number of rows in a batch."""

BATCH_BYTES = 4 << 20
"""The approximate limit of bytes in a batch. A batch with a single row may be larger."""


class TableBatch(NamedTuple):
    """Some rows of a file.

    `numbers` has one entry per row: its number in the file, from 0. `unreadable` lists the rows
    that can't be read, by number and reason. They are not in `rows`.
    """

    rows: pa.RecordBatch
    numbers: npt.NDArray[np.int64]
    unreadable: list[tuple[int, str]] = []


class TableFile(Protocol):
    """An open file."""

    @property
    def schema(self) -> pa.Schema:
        """The columns. An empty file may have none."""

    @property
    def rows(self) -> int | None:
        """The number of rows, or None if the file does not say it."""

    @property
    def is_text(self) -> bool:
        """Whether all values are text, because the format knows no types."""

    def batches(self, columns: Sequence[str], row_bytes: int) -> Iterator[TableBatch]:
        """Yield these columns in batches.

        A row has at least `row_bytes` in memory. Text may be bytes that are not valid UTF-8. Raise
        `InvalidInput` if the file is damaged, and `Unavailable` if it can't be read. The message of
        `InvalidInput` does not name the file.
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
        raise InvalidInput(f"{message}: {error}") from None
    except (pa.ArrowException, UnicodeError) as error:
        raise InvalidInput(f"{message}: {error}") from None


def batch_rows(total_bytes: int, rows: int, row_bytes: int) -> int:
    """Return how many rows a batch may have, for a table with these bytes and rows."""
    return max(min(BATCH_ROWS, BATCH_BYTES // max(total_bytes // max(rows, 1), row_bytes, 1)), 1)


def numbered(batches: Iterator[pa.RecordBatch]) -> Iterator[TableBatch]:
    """Yield batches of a file all of whose rows can be read, with the numbers of their rows."""
    start = 0
    for rows in batches:
        yield TableBatch(rows, np.arange(start, start + len(rows)))
        start += len(rows)


def decoded(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """Decode the dictionaries in a batch; yield its rows in smaller batches.

    A dictionary of text holds each distinct string once. After decoding, each row has its own copy.
    Each of the smaller batches has at most `BATCH_BYTES` of this text, unless it has a single row.
    """
    batch = _without_views(batch)
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


def _without_views(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return a batch in which views of text are ordinary text, because few functions take views."""
    types = batch.schema.types
    for position, (name, type_) in enumerate(zip(batch.schema.names, types, strict=True)):
        column = batch.column(position)
        if is_view(type_):
            column = column.cast(_stored_type(type_))
        elif pa.types.is_dictionary(type_) and is_view(type_.value_type):
            values = column.dictionary.cast(_stored_type(type_.value_type))
            column = pa.DictionaryArray.from_arrays(column.indices, values)
        else:
            continue
        batch = batch.set_column(position, name, column)
    return batch


def _stored_type(view: pa.DataType) -> pa.DataType:
    return pa.large_string() if pa.types.is_string_view(view) else pa.large_binary()
