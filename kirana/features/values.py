"""Conversion of the values in a write to columns of the features' dtypes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from kirana.codecs import Column
from kirana.errors import InvalidInput, TooLarge
from kirana.schema import NON_FINITE, NUMERIC, Array, Feature, SchemaVersion, fits_float

MAX_STRING = 200_000
"""The longest string value, in characters."""


def columns_of(
    version: SchemaVersion, values: Mapping[str, Sequence[Any] | Column], rows: int
) -> dict[str, Column]:
    """Return `values` as columns of a schema version; `rows` is the number of keys.

    The values of a feature are a list or a `Column`. A column may have a different numeric dtype
    from its feature if its numbers fit (floats do not fit integers). Raise `InvalidInput` if values
    do not fit or their number is wrong, `TooLarge` if a string is too long, and `Unknown` for an
    unknown feature. The field of the error is `columns.<name>` or `columns.<name>[position]`.
    """
    columns = {}
    for name, column_values in values.items():
        field = f"columns.{name}"
        feature = version.feature(name, field=field)
        count = (
            len(column_values.values) if isinstance(column_values, Column) else len(column_values)
        )
        if count != rows:
            raise InvalidInput(f"expected {rows} values, one per key, not {count}", field=field)
        if isinstance(column_values, Column):
            columns[name] = _checked(feature, column_values, field=field)
            continue
        columns[name] = column_of(feature, column_values, field=field)
    return columns


def column_of(feature: Feature, values: Sequence[Any], *, field: str) -> Column:
    """Return a list of values as a column of the feature's dtype. None is a null.

    Raise `InvalidInput` for the first value that does not fit the dtype or the shape, or `TooLarge`
    if it is a string that is too long. The field of the error is `<field>[<position>]`.
    """
    nulls: npt.NDArray[np.bool_] | None = None
    if None in values:
        nulls = np.fromiter((value is None for value in values), dtype=np.bool_)
        filler: Any = "" if feature.dtype == "string" else np.zeros(feature.shape).tolist()
        values = [filler if value is None else value for value in values]
    if feature.dtype == "string":
        return Column(_strings(values, field), nulls)
    if feature.dtype == "bool":
        return Column(_booleans(values, nulls, field), nulls)
    return Column(_numbers(feature, values, nulls, field), nulls)


def _checked(feature: Feature, column: Column, *, field: str) -> Column:
    """Return a column in the feature's dtype.

    Raise `InvalidInput` if its dtype, its shape, a string or its mask of nulls does not fit, and
    `TooLarge` if a string is too long.
    """
    values, nulls = column.values, column.nulls
    dtype = "string" if values.dtype == object else values.dtype.name
    if values.shape[1:] == feature.shape and feature.dtype != dtype:
        cast = _cast(values, NUMERIC.get(feature.dtype))
        if cast is not None:
            return _checked(feature, Column(cast, nulls), field=field)
    if dtype != feature.dtype or values.shape[1:] != feature.shape:
        raise InvalidInput(
            f"an array of {dtype}{list(values.shape[1:]) or ''} does not fit "
            f"{feature.dtype}{list(feature.shape) or ''}",
            field=field,
        )
    if nulls is not None and nulls.shape != values.shape[:1]:
        raise InvalidInput(
            f"the mask of nulls must have the shape [{len(values)}], not {list(nulls.shape)}",
            field=field,
        )
    if dtype == "string":
        _strings(values.tolist(), field)
    return column


def _cast(values: Array, dtype: np.dtype[Any] | None) -> Array | None:
    """Return `values` as `dtype`, or None if they have this dtype already or can't be converted.

    Values can't be converted if they are not numbers, if one does not fit `dtype`, or if they are
    floats and `dtype` is an integer type. `dtype` is None for a feature that is not numeric.
    """
    if dtype is None or values.dtype.kind not in "fiu" or values.dtype == dtype:
        return None
    if dtype.kind != "f":
        if values.dtype.kind == "f":
            return None
        integers = values.astype(dtype)
        return integers if bool((integers == values).all()) else None
    with np.errstate(over="ignore"):
        floats = values.astype(dtype)
    return floats if bool((np.isfinite(floats) | ~np.isfinite(values)).all()) else None


def _error(value: Any, wanted: str, field: str, position: int) -> InvalidInput:
    """Return an `InvalidInput` for the value at a position of `field`."""
    shown = repr(value[:60]) if isinstance(value, str) else str(value)[:60]
    return InvalidInput(f"must be {wanted}, not {shown}", field=f"{field}[{position}]")


def _strings(values: Sequence[Any], field: str) -> Array:
    """Return strings as an array of objects.

    Raise `InvalidInput` for a value that is not a string in valid Unicode, and `TooLarge` for one
    that is too long.
    """
    for position, value in enumerate(values):
        if not isinstance(value, str):
            raise _error(value, "a string", field, position)
        if not value.isascii() and not _is_unicode(value):
            raise _error(value, "valid Unicode", field, position)
        if len(value) > MAX_STRING:
            raise TooLarge(
                f"the string has {len(value)} characters, the limit is {MAX_STRING}",
                field=f"{field}[{position}]",
            )
    return np.array(values, dtype=object)


def _is_unicode(text: str) -> bool:
    """Return whether a string is valid Unicode, without surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _booleans(values: Sequence[Any], nulls: Array | None, field: str) -> Array:
    """Return an array of booleans. Raise `InvalidInput` for a value that is not a bool or null."""
    for position, value in enumerate(values):
        if not isinstance(value, bool) and not (nulls is not None and nulls[position]):
            raise _error(value, "true or false", field, position)
    return np.array(values, dtype=np.bool_)


def _numbers(feature: Feature, values: Sequence[Any], nulls: Array | None, field: str) -> Array:
    """Return an array of shape `(rows, *feature.shape)`, with 0 for nulls.

    Raise `InvalidInput` for a value that does not fit the dtype or the shape.
    """
    dtype = NUMERIC[feature.dtype]
    wanted = f"{feature.dtype}{list(feature.shape) or ''}"
    if not feature.shape and dtype.kind == "f" and set(map(type, values)) <= {float}:
        wide = np.array(values, dtype=np.float64)
        if not (np.isfinite(wide) & (np.abs(wide) > float(np.finfo(dtype).max))).any():
            return wide.astype(dtype)
    out = np.zeros((len(values), *feature.shape), dtype=dtype)
    for position, value in enumerate(values):
        if nulls is not None and nulls[position]:
            continue
        flat = _flatten(value, feature.shape)
        if flat is None or not all(_fits(element, dtype) for element in flat):
            raise _error(value, wanted, field, position)
        numbers = [NON_FINITE[element] if isinstance(element, str) else element for element in flat]
        out[position] = np.array(numbers, dtype=dtype).reshape(feature.shape)
    return out


def _flatten(value: Any, shape: tuple[int, ...]) -> list[Any] | None:
    """Return the elements of nested lists as one list; None if the lists do not have `shape`."""
    if not shape:
        return None if isinstance(value, list | tuple) else [value]
    if not isinstance(value, list) or len(value) != shape[0]:
        return None
    flat: list[Any] = []
    for inner in value:
        elements = _flatten(inner, shape[1:])
        if elements is None:
            return None
        flat += elements
    return flat


def _fits(value: Any, dtype: np.dtype[Any]) -> bool:
    """Return whether a value fits `dtype`. The texts in `NON_FINITE` fit a float dtype."""
    if isinstance(value, bool):
        return False
    if dtype.kind == "f":
        if isinstance(value, int | float):
            return fits_float(value, dtype)
        return isinstance(value, str) and value in NON_FINITE
    return isinstance(value, int) and bool(np.iinfo(dtype).min <= value <= np.iinfo(dtype).max)
