"""Arrays as JSON: one list a row, each dtype kept, non-finite floats as strings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson

from kirana.codecs import Column
from kirana.edge.replies import fragment
from kirana.schema import Array

_NAMES = {np.inf: "Infinity", -np.inf: "-Infinity"}


def numbers(values: Array) -> Any:
    """Return an array as a fragment of a reply."""
    return fragment(_encode(_finite(values)))


def rows_of(columns: Sequence[Column], count: int) -> Any:
    """Return columns as a fragment of a reply: one list a row."""
    return fragment(_encode(_rows(columns, count)))


def _encode(value: object) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)


def _finite(values: Array) -> Array | list[Any]:
    """Return an array that serializes as it is, or lists with names for what JSON lacks."""
    if values.dtype.kind != "f" or bool(np.isfinite(values).all()):
        return np.ascontiguousarray(values)
    cells = _shortest(values)
    for position in np.argwhere(~np.isfinite(values)).tolist():
        row = cells
        for at in position[:-1]:
            row = row[at]
        number = float(values[tuple(position)])
        row[position[-1]] = "NaN" if number != number else _NAMES[number]
    return cells


def _shortest(values: Array) -> list[Any]:
    """Through JSON, because a float32 has fewer digits than the double it would become."""
    cells: list[Any] = orjson.loads(_encode(np.ascontiguousarray(values)))
    return cells


def _rows(columns: Sequence[Column], count: int) -> Any:
    """Turn columns into rows that serialize: an array where all are alike, else lists."""
    if not columns:
        return [[] for _ in range(count)]
    first = columns[0].values
    alike = all(
        each.values.dtype == first.dtype and each.values.ndim == 1 and each.nulls is None
        for each in columns
    )
    if alike and first.dtype != object:
        stacked = np.stack([each.values for each in columns], axis=1)
        return _finite(stacked)
    return list(zip(*(_cells(each) for each in columns), strict=True))


def _cells(column: Column) -> list[Any]:
    values = column.values if column.values.dtype == object else _finite(column.values)
    if isinstance(values, list):
        cells = values
    else:
        cells = values.tolist() if values.dtype == object else _shortest(values)
    if column.nulls is not None:
        for at in np.flatnonzero(column.nulls).tolist():
            cells[at] = None
    return cells
