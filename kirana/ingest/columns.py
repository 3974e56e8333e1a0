"""Columns of a table as values of features. Errors name neither the file nor the row."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from kirana.clock import FUTURE, MAX_FUTURE_MS, first_wrong_unit, unit_problem
from kirana.codecs import Column
from kirana.codecs.arrow import texts_of
from kirana.codecs.arrow_types import arrow_type, is_list, is_text
from kirana.codecs.rows import Texts
from kirana.errors import InvalidInput
from kirana.ingest.texts import parsed_times
from kirana.schema import NUMERIC, Array, Feature


def text(column: Any) -> Any:
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
        raise InvalidInput(f"invalid UTF-8: {error}") from None
    return column


def event_times(column: Any, now_ms: int) -> npt.NDArray[np.uint64]:
    """Return a column of event times in Unix milliseconds.

    Raise `InvalidInput` if one is missing, before 1970, more than five minutes after `now_ms`, or
    not a time. A time is a timestamp, a date, an integer number of milliseconds, or one as text.
    """
    if is_text(column.type):
        column = parsed_times(_cast(text(column), pa.string()))
    if column.null_count:
        raise InvalidInput("the event time is missing")
    has_unit = pa.types.is_timestamp(column.type) or pa.types.is_date(column.type)
    if has_unit:
        column = pc.cast(pc.cast(column, pa.timestamp("ms"), safe=False), pa.int64())
    times: Array = _cast(column, pa.int64()).to_numpy(zero_copy_only=False)
    if not len(times):
        return times.astype(np.uint64)
    if int(times.min()) < 0:
        raise InvalidInput(f"{times.min()} is before 1970")
    position = None if has_unit else first_wrong_unit(times)
    if position is not None:
        raise InvalidInput(str(unit_problem(int(times[position]))))
    if int(times.max()) > now_ms + MAX_FUTURE_MS:
        raise InvalidInput(f"{times.max()} is {FUTURE}")
    return times.astype(np.uint64)


def values(feature: Feature, column: Any) -> Column | Texts:
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
            raise InvalidInput(f"must be text, not {column.type}")
        texts = _cast(text(column), pa.string())
        return texts_of(pc.fill_null(texts, ""), nulls)
    if feature.dtype == "bool":
        flags = _cast(column, pa.bool_())
        return Column(pc.fill_null(flags, False).to_numpy(zero_copy_only=False), nulls)
    return Column(_numbers(feature, column, nulls), nulls)


def _numbers(feature: Feature, column: Any, nulls: Array | None) -> Array:
    """Return numbers of shape `(rows, *feature.shape)`; nulls are 0."""
    dtype = NUMERIC[feature.dtype]
    if not feature.shape:
        numbers = _cast(_numeric(column, dtype), pa.from_numpy_dtype(dtype))
        cells: Array = pc.fill_null(numbers, 0).to_numpy(zero_copy_only=False)
        return cells
    if not is_list(column.type):
        raise InvalidInput(f"must be lists of {feature.dtype}, not {column.type}")
    lists = column if nulls is None else column.filter(pa.array(~nulls))
    flat = _flat(feature, lists)
    cells = _cast(_numeric(flat, dtype), pa.from_numpy_dtype(dtype)).to_numpy(zero_copy_only=False)
    block = cells.reshape(-1, *feature.shape)
    if nulls is None:
        return block
    out = np.zeros((len(column), *feature.shape), dtype=dtype)
    out[~nulls] = block
    return out


def _flat(feature: Feature, lists: Any) -> Any:
    """Return the elements of lists, which are flat, or nested as the shape of the feature is."""
    nested = is_list(lists.type.value_type)
    for size in feature.shape if nested else (feature.size,):
        if not is_list(lists.type):
            raise InvalidInput(f"must be lists in the shape {list(feature.shape)}")
        lengths = pc.list_value_length(lists).to_numpy(zero_copy_only=False)
        wrong = np.flatnonzero(lengths != size)
        if len(wrong):
            length = lengths[wrong[0]]
            raise InvalidInput(f"each list must have {size} elements, not {int(length)}")
        lists = lists.flatten()
        if lists.null_count:
            raise InvalidInput("a list must not hold nulls")
    return lists


def _numeric(column: Any, dtype: np.dtype[Any]) -> Any:
    """Return dates and timestamps as Unix milliseconds, and decimals as integers or floats.

    For a float dtype, a decimal becomes the nearest float.
    """
    if pa.types.is_date(column.type) or pa.types.is_timestamp(column.type):
        try:
            return pc.cast(pc.cast(column, pa.timestamp("ms")), pa.int64())
        except pa.ArrowInvalid as error:
            raise InvalidInput(f"a time is not a whole number of milliseconds: {error}") from None
    if pa.types.is_decimal(column.type):
        return _cast(column, pa.float64() if dtype.kind == "f" else pa.from_numpy_dtype(dtype))
    return column


def _require_same(integers: Any, halves: Any) -> None:
    """Raise `ArrowInvalid` if integers changed when they became half floats, which Arrow allows."""
    # Integers that float32 can't hold exactly raise the same error here.
    same = pc.equal(pc.cast(halves, pa.float32()), pc.cast(integers, pa.float32()))
    if not pc.all(same, min_count=0).as_py():
        raise pa.ArrowInvalid("an integer can't be held exactly")


def _cast(column: Any, wanted: Any) -> Any:
    """Return a column as the Arrow type `wanted`.

    Floats may be rounded to a smaller float type. Raise `InvalidInput` if the type of the
    column can't be converted, if a value would change in any other way, or if a finite float
    would become infinite.
    """
    both_float = pa.types.is_floating(column.type) and pa.types.is_floating(wanted)
    kinds = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal)
    numeric = any(kind(column.type) for kind in kinds)
    try:
        if not numeric and (pa.types.is_integer(wanted) or pa.types.is_floating(wanted)):
            raise pa.ArrowInvalid(f"{column.type} is not a numeric type")
        if pa.types.is_boolean(wanted) and not pa.types.is_boolean(column.type):
            raise pa.ArrowInvalid(f"{column.type} is not bool")
        converted = pc.cast(column, wanted, safe=not both_float)
        if pa.types.is_float16(wanted) and pa.types.is_integer(column.type):
            _require_same(column, converted)
        if both_float and pc.sum(pc.is_inf(converted)) != pc.sum(pc.is_inf(column)):
            raise pa.ArrowInvalid(f"a number is out of the range of {wanted}")
        return converted
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise InvalidInput(f"the values do not fit {wanted}: {error}") from None
