"""Values that people send, as columns of a feature's dtype; what does not fit is named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from kirana.codecs import Column
from kirana.errors import InvalidInput, TooLarge
from kirana.schema import NON_FINITE, NUMERIC, Array, Feature, SchemaVersion, fits_float

MAX_STRING = 200_000


def columns_of(
    version: SchemaVersion, values: Mapping[str, Sequence[Any] | Column], rows: int
) -> dict[str, Column]:
    """Turn lists, or arrays of the right dtype, into columns of `version`.

    Raises `InvalidInput` or `Unknown` with a field.
    """
    columns = {}
    for name, given in values.items():
        feature = version.feature(name, field=f"columns.{name}")
        count = len(given.values) if isinstance(given, Column) else len(given)
        if count != rows:
            raise InvalidInput(
                f"'{name}' has {count} values for {rows} keys", field=f"columns.{name}"
            )
        if isinstance(given, Column):
            columns[name] = _checked(feature, given, field=f"columns.{name}")
            continue
        columns[name] = column_of(feature, given, field=f"columns.{name}")
    return columns


def column_of(feature: Feature, values: Sequence[Any], *, field: str) -> Column:
    """Turn a list, in which None is null, into a column.

    Raises `InvalidInput` that names the first value which the dtype or shape can't hold.
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
    values, nulls = column.values, column.nulls
    dtype = "string" if values.dtype == object else values.dtype.name
    if values.shape[1:] == feature.shape and feature.dtype != dtype:
        cast = _cast(values, NUMERIC.get(feature.dtype))
        if cast is not None:
            return _checked(feature, Column(cast, nulls), field=field)
    if dtype != feature.dtype or values.shape[1:] != feature.shape:
        raise InvalidInput(
            f"{dtype}{list(values.shape[1:]) or ''} is not "
            f"{feature.dtype}{list(feature.shape) or ''}, or does not fit",
            field=field,
        )
    if nulls is not None and nulls.shape != values.shape[:1]:
        raise InvalidInput("nulls must have one entry for each row", field=field)
    if dtype == "string":
        _strings(values.tolist(), field)
    return column


def _cast(values: Array, dtype: np.dtype[Any] | None) -> Array | None:
    """Return numbers in another dtype; None if they are none, or one does not fit."""
    if dtype is None or values.dtype.kind not in "fiu" or values.dtype == dtype:
        return None
    if dtype.kind != "f":
        if values.dtype.kind == "f":
            return None
        whole = values.astype(dtype)
        return whole if bool((whole == values).all()) else None
    with np.errstate(over="ignore"):
        floats = values.astype(dtype)
    return floats if bool((np.isfinite(floats) | ~np.isfinite(values)).all()) else None


def _refuse(value: Any, wanted: str, field: str, at: int) -> InvalidInput:
    return InvalidInput(f"{str(value)[:60]!r} is not {wanted}", field=f"{field}[{at}]")


def _strings(values: Sequence[Any], field: str) -> Array:
    for at, value in enumerate(values):
        if not isinstance(value, str):
            raise _refuse(value, "a string", field, at)
        if not value.isascii() and not _is_unicode(value):
            raise _refuse(value, "valid Unicode", field, at)
        if len(value) > MAX_STRING:
            raise TooLarge(
                f"{len(value)} characters, the limit is {MAX_STRING}", field=f"{field}[{at}]"
            )
    return np.array(values, dtype=object)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _booleans(values: Sequence[Any], nulls: Array | None, field: str) -> Array:
    for at, value in enumerate(values):
        if not isinstance(value, bool) and not (nulls is not None and nulls[at]):
            raise _refuse(value, "true or false", field, at)
    return np.array(values, dtype=np.bool_)


def _numbers(feature: Feature, values: Sequence[Any], nulls: Array | None, field: str) -> Array:
    dtype = NUMERIC[feature.dtype]
    wanted = f"{feature.dtype}{list(feature.shape) or ''}"
    if not feature.shape and dtype.kind == "f" and set(map(type, values)) <= {float}:
        wide = np.array(values, dtype=np.float64)
        if not (np.isfinite(wide) & (np.abs(wide) > float(np.finfo(dtype).max))).any():
            return wide.astype(dtype)
    out = np.zeros((len(values), *feature.shape), dtype=dtype)
    for at, value in enumerate(values):
        if nulls is not None and nulls[at]:
            continue
        flat = _flatten(value, feature.shape)
        if flat is None or not all(_fits(each, dtype) for each in flat):
            raise _refuse(value, wanted, field, at)
        numbers = [NON_FINITE[each] if isinstance(each, str) else each for each in flat]
        out[at] = np.array(numbers, dtype=dtype).reshape(feature.shape)
    return out


def _flatten(value: Any, shape: tuple[int, ...]) -> list[Any] | None:
    """Return the elements of nested lists of `shape`; None where the lists are of another."""
    if not shape:
        return None if isinstance(value, list | tuple) else [value]
    if not isinstance(value, list) or len(value) != shape[0]:
        return None
    flat: list[Any] = []
    for part in value:
        elements = _flatten(part, shape[1:])
        if elements is None:
            return None
        flat += elements
    return flat


def _fits(value: Any, dtype: np.dtype[Any]) -> bool:
    if isinstance(value, bool):
        return False
    if dtype.kind == "f":
        if isinstance(value, int | float):
            return fits_float(value, dtype)
        return isinstance(value, str) and value in NON_FINITE
    return isinstance(value, int) and bool(np.iinfo(dtype).min <= value <= np.iinfo(dtype).max)
