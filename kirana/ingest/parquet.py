"""Feature rows in Parquet files: checked as a whole first, then written batch by batch."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from kirana.clock import first_of_another_unit, unit_problem
from kirana.codecs import CODECS, Column
from kirana.codecs.arrow import joined_of, texts_of
from kirana.codecs.rows import Texts
from kirana.errors import InvalidInput, TooLarge, did_you_mean
from kirana.key_texts import MAX_KEY_BYTES, check_lengths, id_texts, join_ids
from kirana.schema import EVENT_TIME, NUMERIC, Array, Feature, FeatureGroup, SchemaVersion
from kirana.stores import RowBlock

BATCH_ROWS = 8_192
BATCH_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class FeatureBatch:
    """Rows of a file, ready to be written; `keys` are key texts, an Arrow array of strings."""

    keys: pa.StringArray
    columns: dict[str, Column | Texts]
    event_time_ms: npt.NDArray[np.uint64]


class ParquetFeatures:
    """One file of one group. Raises `InvalidInput` naming the column, and the row where it can."""

    def __init__(self, path: Path, group: FeatureGroup, version: SchemaVersion) -> None:
        self.path = path
        self._group = group
        self._version = version
        # all others have rows of one size, which publishing has checked
        self._sizes_differ = group.codec == "text" or any(
            each.dtype == "string" for each in version.features
        )
        self._file = self._open([])
        self.rows: int = self._file.metadata.num_rows
        self._check_columns()
        of_strings = [*(k.name for k in group.entity.keys), *version.index]
        schema = self._file.schema_arrow
        dictionaries = [name for name in of_strings if _is_text(schema.field(name).type)]
        if dictionaries:
            self._file = self._open(dictionaries)

    def _open(self, dictionaries: list[str]) -> pq.ParquetFile:
        """Open the file; columns of `dictionaries` are read as such: see `_of_bounded_size`."""
        try:
            return pq.ParquetFile(
                self.path, read_dictionary=dictionaries, page_checksum_verification=True
            )
        except (OSError, pa.ArrowInvalid) as error:
            raise InvalidInput(f"{self.path} can't be read as Parquet: {error}") from None

    def _check_columns(self) -> None:
        names = set(self._file.schema_arrow.names)
        for name in names:
            if self._file.schema_arrow.names.count(name) > 1:
                raise self._refuse(name, "the file has this column twice")
        keys = [key.name for key in self._group.entity.keys]
        features = list(self._version.index)
        for name in [*keys, *features]:
            if name not in names:
                kind = "key" if name in keys else "feature"
                raise self._refuse(name, f"the {kind} is missing: {did_you_mean(name, names)}")
        for name in sorted(names - {*keys, *features, EVENT_TIME}):
            known = [*keys, *features, EVENT_TIME]
            raise self._refuse(
                name,
                f"'{self._group.name}' version {self._version.number} has no such feature: "
                + did_you_mean(name, known),
            )

    def _refuse(self, column: str, message: str) -> InvalidInput:
        return InvalidInput(f"{self.path.name}, column '{column}': {message}", field=column)

    def check(self, now_ms: int, latest_ms: int) -> Iterator[int]:
        """Read every row once, so that nothing is written of a file that has a wrong one.

        Yields batch by batch how many rows were read.
        """
        for batch in self.batches(now_ms):
            late = np.flatnonzero(batch.event_time_ms > latest_ms)
            if len(late):
                found = batch.event_time_ms[late[0]]
                raise self._refuse(EVENT_TIME, f"{found} is more than five minutes ahead")
            if self._sizes_differ:
                try:
                    self.block(batch)
                except TooLarge as error:
                    raise InvalidInput(f"{self.path.name}: {error.message}") from None
            yield len(batch.keys)

    def block(self, batch: FeatureBatch) -> RowBlock:
        """Return the rows as a store takes them. Raises `TooLarge` where one can't be stored."""
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
        """Yield all rows; those without an event time are of `now_ms`."""
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
        try:
            for batch in self._file.iter_batches(batch_size=self._batch_rows()):
                yield from _of_bounded_size(batch)
        except (OSError, pa.ArrowException) as error:
            raise InvalidInput(f"{self.path} is damaged: {error}") from None

    def _batch_rows(self) -> int:
        """Fewer where rows are large: what is made of a batch takes many times its bytes.

        The file may say the same in few bytes, so numbers count as many as they take here.
        """
        metadata = self._file.metadata
        size = sum(metadata.row_group(at).total_byte_size for at in range(metadata.num_row_groups))
        numbers = [f for f in self._version.features if f.dtype in NUMERIC]
        here = sum(each.size * NUMERIC[each.dtype].itemsize for each in numbers)
        largest = max(int(size) // max(self.rows, 1), here, 1)
        return max(min(BATCH_ROWS, BATCH_BYTES // largest), 1)

    def _keys(self, batch: Any, start: int) -> pa.StringArray:
        for key in self._group.entity.keys:
            column = batch.column(key.name)
            if _is_text(column.type):
                position = batch.schema.get_field_index(key.name)
                batch = batch.set_column(position, key.name, self._text(key.name, column, start))
        found = self._plain_keys(batch)
        return pa.array(self._key_texts(batch, start), pa.string()) if found is None else found

    def _plain_keys(self, batch: Any) -> pa.StringArray | None:
        """Return the key texts of the usual column, in which nothing is wrong or to be escaped."""
        if len(self._group.entity.keys) > 1:
            return None
        (key,) = self._group.entity.keys
        column = batch.column(key.name)
        if pa.types.is_integer(column.type) and key.dtype != "string":
            try:
                return pc.cast(pc.cast(column, key.dtype), pa.string()) if _full(column) else None
            except pa.ArrowInvalid:
                return None
        if key.dtype != "string" or not pa.types.is_string(column.type) or not _full(column):
            return None
        lengths = pc.min_max(pc.binary_length(column)).as_py()
        special = pc.any(pc.match_substring_regex(column, r"[|\\]")).as_py()
        fits = lengths["min"] > 0 and lengths["max"] <= MAX_KEY_BYTES
        return column if fits and not special else None

    def _key_texts(self, batch: Any, start: int) -> list[str]:
        columns = []
        for key in self._group.entity.keys:
            column = batch.column(key.name)
            if column.null_count:
                row = start + column.is_null().to_pylist().index(True)
                raise self._refuse(key.name, f"row {row} has no key")
            values = column.to_pylist()
            try:
                columns.append(id_texts(key, values, field=f"{key.name}, row {start} on"))
            except InvalidInput as error:
                raise self._refuse(key.name, f"{error.message} ({error.field})") from None
        texts = join_ids(columns)
        name = self._group.entity.keys[0].name
        try:
            check_lengths(texts, field=f"{name}, row {start} on")
        except TooLarge as error:
            raise self._refuse(name, f"{error.message} ({error.field})") from None
        return texts

    def _text(self, name: str, column: Any, start: int) -> Any:
        """Return strings; a writer that does not say so has left them bytes."""
        if pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):
            large = pa.types.is_large_binary(column.type)
            column = column.view(pa.large_string() if large else pa.string())
        try:
            column.validate(full=True)
        except pa.ArrowInvalid as error:
            # Arrow counts from the beginning of the batch
            raise self._refuse(name, f"this is not text, from row {start} on: {error}") from None
        return column

    def _event_times(self, batch: Any, start: int, now_ms: int) -> npt.NDArray[np.uint64]:
        if EVENT_TIME not in batch.schema.names:
            return np.full(len(batch), now_ms, dtype=np.uint64)
        column = batch.column(EVENT_TIME)
        if column.null_count:
            raise self._refuse(EVENT_TIME, "a row has no event time")
        typed = pa.types.is_timestamp(column.type)
        if typed:
            column = pc.cast(pc.cast(column, pa.timestamp("ms"), safe=False), pa.int64())
        times: Array = self._cast(EVENT_TIME, column, pa.int64()).to_numpy(zero_copy_only=False)
        if len(times) and int(times.min()) < 0:
            raise self._refuse(EVENT_TIME, f"{times.min()} is before 1970")
        wrong = None if typed else first_of_another_unit(times)
        if wrong is not None:
            raise self._refuse(
                EVENT_TIME, f"row {start + wrong}: {unit_problem(int(times[wrong]))}"
            )
        return times.astype(np.uint64)

    def _column(self, feature: Feature, column: Any, start: int) -> Column | Texts:
        nulls = None
        if pa.types.is_null(column.type):
            column = pa.nulls(len(column), _arrow_type(feature))
        if column.null_count:
            nulls = column.is_null().to_numpy(zero_copy_only=False)
        if feature.dtype == "string":
            if not _is_text(column.type):
                raise self._refuse(feature.name, f"{column.type} is not text")
            texts = self._text(feature.name, column, start)
            texts = self._cast(feature.name, texts, pa.string())
            return texts_of(pc.fill_null(texts, ""), nulls)
        if feature.dtype == "bool":
            flags = self._cast(feature.name, column, pa.bool_())
            return Column(pc.fill_null(flags, False).to_numpy(zero_copy_only=False), nulls)
        return Column(self._numbers(feature, column, nulls), nulls)

    def _numbers(self, feature: Feature, column: Any, nulls: Array | None) -> Array:
        dtype = NUMERIC[feature.dtype]
        if not feature.shape:
            numbers = self._cast(feature.name, column, pa.from_numpy_dtype(dtype))
            values: Array = pc.fill_null(numbers, 0).to_numpy(zero_copy_only=False)
            return values
        if not _is_list(column.type):
            raise self._refuse(feature.name, f"{column.type} is not a list of {feature.dtype}")
        lists = column if nulls is None else column.filter(pa.array(~nulls))
        lengths = pc.list_value_length(lists).to_numpy(zero_copy_only=False)
        wrong = np.flatnonzero(lengths != feature.size)
        if len(wrong):
            raise self._refuse(
                feature.name,
                f"a list of {int(lengths[wrong[0]])} where the shape is {list(feature.shape)}",
            )
        flat = lists.flatten()
        if flat.null_count:
            raise self._refuse(feature.name, "a list holds a null")
        cells = self._cast(feature.name, flat, pa.from_numpy_dtype(dtype))
        block = cells.to_numpy(zero_copy_only=False).reshape(-1, *feature.shape)
        if nulls is None:
            return block  # type: ignore[no-any-return]
        out = np.zeros((len(column), *feature.shape), dtype=dtype)
        out[~nulls] = block
        return out

    def _cast(self, name: str, column: Any, wanted: Any) -> Any:
        """Integers must fit; a float may lose digits, which is what float32 is for."""
        both_float = pa.types.is_floating(column.type) and pa.types.is_floating(wanted)
        numeric = pa.types.is_integer(column.type) or pa.types.is_floating(column.type)
        try:
            if not numeric and (pa.types.is_integer(wanted) or pa.types.is_floating(wanted)):
                raise pa.ArrowInvalid(f"{column.type} is no number")
            if pa.types.is_boolean(wanted) and not pa.types.is_boolean(column.type):
                raise pa.ArrowInvalid(f"{column.type} is no bool")
            found = pc.cast(column, wanted, safe=not both_float)
            if both_float and pc.sum(pc.is_inf(found)) != pc.sum(pc.is_inf(column)):
                raise pa.ArrowInvalid("a number is out of its range")
            return found
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise self._refuse(name, f"it does not fit {wanted}: {error}") from None


def _of_bounded_size(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """Yield the rows in batches of about `BATCH_BYTES`, with strings where dictionaries were.

    A long string that many rows have is in the file once, and here as often as they have it.
    """
    positions = [at for at, type_ in enumerate(batch.schema.types) if _is_text_dictionary(type_)]
    sizes = np.zeros(len(batch), dtype=np.int64)
    for at in positions:
        column = batch.column(at)
        lengths = pc.take(pc.binary_length(column.dictionary), column.indices)
        sizes += pc.fill_null(lengths, 0).to_numpy(zero_copy_only=False)
    ends = np.cumsum(sizes)
    start = 0
    while start < len(batch):
        limit = BATCH_BYTES + (int(ends[start - 1]) if start else 0)
        stop = max(int(np.searchsorted(ends, limit, side="right")), start + 1)
        cut = batch.slice(start, stop - start)
        for at in positions:
            cut = cut.set_column(at, batch.schema.names[at], cut.column(at).dictionary_decode())
        yield cut
        start = stop


def _is_text_dictionary(type_: Any) -> bool:
    return bool(pa.types.is_dictionary(type_) and _is_text(type_.value_type))


def _is_text(type_: Any) -> bool:
    """Whether these are strings, or bytes that may be."""
    kinds = pa.types
    checks = (kinds.is_string, kinds.is_large_string, kinds.is_binary, kinds.is_large_binary)
    return any(check(type_) for check in (*checks, kinds.is_string_view, kinds.is_binary_view))


def _arrow_type(feature: Feature) -> Any:
    if feature.dtype == "string":
        return pa.string()
    number = pa.bool_() if feature.dtype == "bool" else pa.from_numpy_dtype(NUMERIC[feature.dtype])
    return pa.list_(number) if feature.shape else number


def _full(column: Any) -> bool:
    return bool(len(column)) and not column.null_count


def _is_list(type_: Any) -> bool:
    return bool(
        pa.types.is_list(type_)
        or pa.types.is_large_list(type_)
        or pa.types.is_fixed_size_list(type_)
    )


def files_of(
    paths: Sequence[Path], group: str | None, known: Collection[str] = ()
) -> list[tuple[str, Path]]:
    """Pair each Parquet file with its group: `group`, or the name of the file or its folder.

    `product.stats.parquet` and every `*.parquet` in `product.stats/` are of `product.stats`; a
    folder of such files and folders is walked. `known` groups decide where both could be a name.
    Raises `InvalidInput` where there is no file.
    """
    found: list[tuple[str, Path]] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(path.rglob("*.parquet"))
            if not inside:
                raise InvalidInput(f"{path} has no *.parquet file")
            found += [(group or _group_name(each, known, walked=True), each) for each in inside]
        elif path.is_file():
            found.append((group or _group_name(path, known, walked=False), path))
        else:
            raise InvalidInput(f"there is no file {path}")
    return found


def _group_name(path: Path, known: Collection[str], *, walked: bool) -> str:
    file, folder = path.stem, path.parent.name
    for name in (file, folder):
        if name in known:
            return name
    return folder if "." in folder and (walked or "." not in file) else file
