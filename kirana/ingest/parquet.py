"""Feature rows in Parquet files.

A file is read twice, batch by batch: first to check all rows, then to write them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from kirana.clock import FUTURE, first_wrong_unit, unit_problem
from kirana.codecs import CODECS, Column
from kirana.codecs.arrow import joined_of, texts_of
from kirana.codecs.rows import Texts
from kirana.errors import InvalidInput, TooLarge, did_you_mean
from kirana.ingest.arrow_types import arrow_type, is_full, is_list, is_text, is_text_dictionary
from kirana.key_texts import MAX_KEY_BYTES, check_lengths, id_texts, join_ids
from kirana.schema import EVENT_TIME, NUMERIC, Array, Feature, FeatureGroup, SchemaVersion
from kirana.stores import RowBlock

BATCH_ROWS = 8_192
"""The maximum number of rows in a batch."""

BATCH_BYTES = 4 << 20
"""The approximate limit of bytes in a batch. A batch with a single row may be larger."""


@dataclass(frozen=True, slots=True)
class FeatureBatch:
    """Rows of a file, checked and ready to be encoded.

    `keys` are key texts. `columns` has the values of each feature by its name. `event_time_ms` has
    one entry per row, in Unix milliseconds.
    """

    keys: pa.StringArray
    columns: dict[str, Column | Texts]
    event_time_ms: npt.NDArray[np.uint64]


class ParquetFeatures:
    """A Parquet file with rows of one feature group.

    The columns are checked when the file is opened, and the rows when they are read. Errors are
    `InvalidInput`. If known, the column and the row are in the message.
    """

    def __init__(self, path: Path, group: FeatureGroup, version: SchemaVersion) -> None:
        self.path = path
        self._group = group
        self._version = version
        # If rows do not differ in size, their size was checked when the group was published.
        self._sizes_differ = group.codec == "text" or any(
            feature.dtype == "string" for feature in version.features
        )
        self._file = self._open([])
        self.rows: int = self._file.metadata.num_rows
        self._check_columns()
        column_names = [*(key.name for key in group.entity.keys), *version.index]
        schema = self._file.schema_arrow
        text_columns = [name for name in column_names if is_text(schema.field(name).type)]
        if text_columns:
            self._file = self._open(text_columns)

    def _open(self, dictionaries: list[str]) -> pq.ParquetFile:
        """Open the file. Raise `InvalidInput` if it can't be read.

        The columns named in `dictionaries` are read as Arrow dictionaries. `_split_batch` decodes
        them.
        """
        try:
            return pq.ParquetFile(
                self.path, read_dictionary=dictionaries, page_checksum_verification=True
            )
        except (OSError, pa.ArrowInvalid) as error:
            raise InvalidInput(f"{self.path} can't be read as Parquet: {error}") from None

    def _check_columns(self) -> None:
        """Raise `InvalidInput` unless the file has each key and each feature once.

        The event time is optional. Other columns are not allowed.
        """
        names = set(self._file.schema_arrow.names)
        for name in names:
            if self._file.schema_arrow.names.count(name) > 1:
                raise self._error(name, "the file has this column twice")
        columns = ", ".join(sorted(names))
        keys = [key.name for key in self._group.entity.keys]
        features = list(self._version.index)
        for name in [*keys, *features]:
            if name not in names:
                kind = "key" if name in keys else "feature"
                raise self._error(name, f"the file lacks this {kind}: its columns are {columns}")
        for name in sorted(names - {*keys, *features, EVENT_TIME}):
            allowed = [*keys, *features, EVENT_TIME]
            raise self._error(
                name,
                f"'{self._group.name}' version {self._version.number} has no such feature: "
                + did_you_mean(name, allowed),
            )

    def _error(self, column: str, message: str) -> InvalidInput:
        """Return an `InvalidInput` about a column of this file."""
        return InvalidInput(f"{self.path.name}, column '{column}': {message}", field=column)

    def _row_error(self, column: str, error: InvalidInput, start: int) -> InvalidInput:
        """Return an `InvalidInput` about one row of the file, with the message of `error`.

        The field of `error` is the position of the row in its batch, such as `[3]`. The batch
        begins at row `start` of the file.
        """
        row = start + int(str(error.field).strip("[]"))
        return self._error(column, f"row {row}: {error.message}")

    def check(self, now_ms: int, latest_ms: int) -> Iterator[int]:
        """Read and check all rows. Raise `InvalidInput` if one is wrong or the file is damaged.

        Yield the number of rows of each batch. `now_ms` is the event time of all rows if the file
        has no event times. Event times must not be after `latest_ms`. Both are in Unix
        milliseconds.
        """
        for batch in self.batches(now_ms):
            too_late = np.flatnonzero(batch.event_time_ms > latest_ms)
            if len(too_late):
                event_time_ms = batch.event_time_ms[too_late[0]]
                raise self._error(EVENT_TIME, f"{event_time_ms} is {FUTURE}")
            if self._sizes_differ:
                try:
                    self.block(batch)
                except TooLarge as error:
                    raise InvalidInput(f"{self.path.name}: {error.message}") from None
            yield len(batch.keys)

    def block(self, batch: FeatureBatch) -> RowBlock:
        """Return a batch as rows for a store. Raise `TooLarge` if a row exceeds a limit."""
        codec = CODECS[self._group.codec]
        values, value_ends = codec.encode_block(
            self._group, self._version, batch.columns, batch.event_time_ms
        )
        keys, key_ends = joined_of(batch.keys)
        return RowBlock(
            self._group.name,
            codec,
            keys,
            key_ends,
            values,
            value_ends,
            self._group.expiry_s(batch.event_time_ms),
            batch.event_time_ms,
        )

    def batches(self, now_ms: int) -> Iterator[FeatureBatch]:
        """Yield all rows in batches. Raise `InvalidInput` for a wrong value or a damaged file.

        `now_ms` (Unix milliseconds) is the event time of all rows if the file has no event times.
        """
        start = 0
        for batch in self._batches():
            yield FeatureBatch(
                self._keys(batch, start),
                {
                    f.name: self._column(f, batch.column(f.name), start)
                    for f in self._version.features
                },
                self._event_times(batch, start, now_ms),
            )
            start += len(batch)

    def _batches(self) -> Iterator[Any]:
        """Yield the rows as Arrow batches. Raise `InvalidInput` if the file is damaged."""
        try:
            for batch in self._file.iter_batches(batch_size=self._batch_rows()):
                yield from _split_batch(batch)
        except (OSError, pa.ArrowException) as error:
            raise InvalidInput(f"{self.path} is damaged: {error}") from None

    def _batch_rows(self) -> int:
        """Return how many rows to read at once: fewer if rows are large.

        The size of a row is estimated from the bytes in the file. A file may encode equal values in
        few bytes, so the estimate is at least the size of a row's numbers in memory.
        """
        metadata = self._file.metadata
        file_bytes = sum(
            metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups)
        )
        numeric = [feature for feature in self._version.features if feature.dtype in NUMERIC]
        number_bytes = sum(feature.size * NUMERIC[feature.dtype].itemsize for feature in numeric)
        row_bytes = max(int(file_bytes) // max(self.rows, 1), number_bytes, 1)
        return max(min(BATCH_ROWS, BATCH_BYTES // row_bytes), 1)

    def _keys(self, batch: Any, start: int) -> pa.StringArray:
        """Return the key texts of a batch, which begins at row `start` of the file."""
        for key in self._group.entity.keys:
            column = batch.column(key.name)
            if is_text(column.type):
                position = batch.schema.get_field_index(key.name)
                batch = batch.set_column(position, key.name, self._text(key.name, column, start))
        plain_keys = self._plain_keys(batch)
        return (
            pa.array(self._key_texts(batch, start), pa.string())
            if plain_keys is None
            else plain_keys
        )

    def _plain_keys(self, batch: Any) -> pa.StringArray | None:
        """Return the key texts of a batch without handling each row in Python, if possible.

        Return None if the entity has several keys, if the batch is empty, if a key is invalid or
        needs escapes, or if the column is neither integers for an integer key nor strings for a
        string key. `_key_texts` handles these cases.
        """
        if len(self._group.entity.keys) > 1:
            return None
        (key,) = self._group.entity.keys
        column = batch.column(key.name)
        if pa.types.is_integer(column.type) and key.dtype != "string":
            try:
                return pc.cast(pc.cast(column, key.dtype), pa.string()) if is_full(column) else None
            except pa.ArrowInvalid:
                return None
        if key.dtype != "string" or not pa.types.is_string(column.type) or not is_full(column):
            return None
        lengths = pc.min_max(pc.binary_length(column)).as_py()
        special = pc.any(pc.match_substring_regex(column, r"[|\\]")).as_py()
        fits = lengths["min"] > 0 and lengths["max"] <= MAX_KEY_BYTES
        return column if fits and not special else None

    def _key_texts(self, batch: Any, start: int) -> list[str]:
        """Return the key texts of a batch, made row by row. This works for keys of any kind.

        Raise `InvalidInput` if a key is invalid.
        """
        columns = []
        for key in self._group.entity.keys:
            column = batch.column(key.name)
            if column.null_count:
                row = start + column.is_null().to_pylist().index(True)
                raise self._error(key.name, f"row {row} has no key")
            values = column.to_pylist()
            try:
                columns.append(id_texts(key, values, field=""))
            except InvalidInput as error:
                raise self._row_error(key.name, error, start) from None
        texts = join_ids(columns)
        name = self._group.entity.keys[0].name
        try:
            check_lengths(texts, field="")
        except TooLarge as error:
            raise self._row_error(name, error, start) from None
        return texts

    def _text(self, name: str, column: Any, start: int) -> Any:
        """Return a column of text or bytes as text.

        Bytes are accepted because some writers do not mark strings as text. Raise `InvalidInput` if
        a value is not valid UTF-8.
        """
        if pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):
            large = pa.types.is_large_binary(column.type)
            column = column.view(pa.large_string() if large else pa.string())
        try:
            column.validate(full=True)
        except pa.ArrowInvalid as error:
            # In Arrow's message, rows count from the start of the batch.
            raise self._error(
                name, f"invalid UTF-8 in the batch that begins at row {start}: {error}"
            ) from None
        return column

    def _event_times(self, batch: Any, start: int, now_ms: int) -> npt.NDArray[np.uint64]:
        """Return the event times of a batch, in Unix milliseconds.

        If the file has none, they are all `now_ms`. Raise `InvalidInput` if one is missing, before
        1970, or neither a timestamp nor an integer number of milliseconds.
        """
        if EVENT_TIME not in batch.schema.names:
            return np.full(len(batch), now_ms, dtype=np.uint64)
        column = batch.column(EVENT_TIME)
        if column.null_count:
            raise self._error(
                EVENT_TIME,
                f"row {start + column.is_null().to_pylist().index(True)} has no event time",
            )
        is_timestamp = pa.types.is_timestamp(column.type)
        if is_timestamp:
            column = pc.cast(pc.cast(column, pa.timestamp("ms"), safe=False), pa.int64())
        times: Array = self._cast(EVENT_TIME, column, pa.int64()).to_numpy(zero_copy_only=False)
        if len(times) and int(times.min()) < 0:
            raise self._error(EVENT_TIME, f"{times.min()} is before 1970")
        position = None if is_timestamp else first_wrong_unit(times)
        if position is not None:
            raise self._error(
                EVENT_TIME, f"row {start + position}: {unit_problem(int(times[position]))}"
            )
        return times.astype(np.uint64)

    def _column(self, feature: Feature, column: Any, start: int) -> Column | Texts:
        """Return the values of a feature: `Texts` for strings, a `Column` for all other dtypes.

        Raise `InvalidInput` if they do not fit the dtype or the shape of the feature.
        """
        nulls = None
        if pa.types.is_null(column.type):
            column = pa.nulls(len(column), arrow_type(feature))
        if column.null_count:
            nulls = column.is_null().to_numpy(zero_copy_only=False)
        if feature.dtype == "string":
            if not is_text(column.type):
                raise self._error(feature.name, f"must be text, not {column.type}")
            texts = self._text(feature.name, column, start)
            texts = self._cast(feature.name, texts, pa.string())
            return texts_of(pc.fill_null(texts, ""), nulls)
        if feature.dtype == "bool":
            flags = self._cast(feature.name, column, pa.bool_())
            return Column(pc.fill_null(flags, False).to_numpy(zero_copy_only=False), nulls)
        return Column(self._numbers(feature, column, nulls), nulls)

    def _numbers(self, feature: Feature, column: Any, nulls: Array | None) -> Array:
        """Return numbers of shape `(rows, *feature.shape)`; nulls are 0."""
        dtype = NUMERIC[feature.dtype]
        if not feature.shape:
            numbers = self._cast(feature.name, column, pa.from_numpy_dtype(dtype))
            values: Array = pc.fill_null(numbers, 0).to_numpy(zero_copy_only=False)
            return values
        if not is_list(column.type):
            raise self._error(feature.name, f"must be lists of {feature.dtype}, not {column.type}")
        lists = column if nulls is None else column.filter(pa.array(~nulls))
        lengths = pc.list_value_length(lists).to_numpy(zero_copy_only=False)
        wrong = np.flatnonzero(lengths != feature.size)
        if len(wrong):
            raise self._error(
                feature.name,
                f"each list must have {feature.size} elements, not {int(lengths[wrong[0]])}",
            )
        flat = lists.flatten()
        if flat.null_count:
            raise self._error(feature.name, "a list must not hold nulls")
        cells = self._cast(feature.name, flat, pa.from_numpy_dtype(dtype))
        block = cells.to_numpy(zero_copy_only=False).reshape(-1, *feature.shape)
        if nulls is None:
            return block  # type: ignore[no-any-return]
        out = np.zeros((len(column), *feature.shape), dtype=dtype)
        out[~nulls] = block
        return out

    def _cast(self, name: str, column: Any, wanted: Any) -> Any:
        """Return a column as the Arrow type `wanted`.

        Floats may be rounded to a smaller float type. Raise `InvalidInput` if the type of the
        column can't be converted, if a value would change in any other way, or if a finite float
        would become infinite.
        """
        both_float = pa.types.is_floating(column.type) and pa.types.is_floating(wanted)
        numeric = pa.types.is_integer(column.type) or pa.types.is_floating(column.type)
        try:
            if not numeric and (pa.types.is_integer(wanted) or pa.types.is_floating(wanted)):
                raise pa.ArrowInvalid(f"{column.type} is not a numeric type")
            if pa.types.is_boolean(wanted) and not pa.types.is_boolean(column.type):
                raise pa.ArrowInvalid(f"{column.type} is not bool")
            converted = pc.cast(column, wanted, safe=not both_float)
            if both_float and pc.sum(pc.is_inf(converted)) != pc.sum(pc.is_inf(column)):
                raise pa.ArrowInvalid(f"a number is out of the range of {wanted}")
            return converted
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise self._error(name, f"the values do not fit {wanted}: {error}") from None


def _split_batch(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """Decode the dictionaries of text in a batch; yield its rows in smaller batches.

    A dictionary holds each distinct string once. After decoding, each row has its own copy. Each of
    the smaller batches has at most `BATCH_BYTES` of this text, unless it has a single row.
    """
    positions = [i for i, type_ in enumerate(batch.schema.types) if is_text_dictionary(type_)]
    sizes = np.zeros(len(batch), dtype=np.int64)
    for position in positions:
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
