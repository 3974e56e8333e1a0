"""Arrays and columns as JSON, with non-finite floats as strings."""

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
    """Return an array of numbers, of any shape, as a fragment of a reply."""
    return fragment(_encode(_finite(values)))


def rows_of(columns: Sequence[Column], count: int) -> Any:
    """Return columns of `count` rows as a fragment of a reply, one list per row."""
    return fragment(_encode(_rows(columns, count)))


def _encode(value: object) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)


def _finite(values: Array) -> Array | list[Any]:
    """Return nested lists with strings for NaN and infinities, or the array if it has none."""
    if values.dtype.kind != "f" or bool(np.isfinite(values).all()):
        return np.ascontiguousarray(values)
    cells = _shortest(values)
    for position in np.argwhere(~np.isfinite(values)).tolist():
        row = cells
        for index in position[:-1]:
            row = row[index]
        number = float(values[tuple(position)])
        row[position[-1]] = "NaN" if number != number else _NAMES[number]
    return cells


def _shortest(values: Array) -> list[Any]:
    """Return an array as nested lists. Floats have no more digits than their dtype needs.

    The lists are made through JSON, because `tolist` turns a float32 of 0.1 into
    0.10000000149011612.
    """
    cells: list[Any] = orjson.loads(_encode(np.ascontiguousarray(values)))
    return cells


def _rows(columns: Sequence[Column], count: int) -> Any:
    """Return rows that orjson can serialize: an array if the columns fit into one, else lists."""
    if not columns:
        return [[] for _ in range(count)]
    first = columns[0].values
    alike = all(
        column.values.dtype == first.dtype and column.values.ndim == 1 and column.nulls is None
        for column in columns
    )
    if alike and first.dtype != object:
        stacked = np.stack([column.values for column in columns], axis=1)
        return _finite(stacked)
    return list(zip(*(_cells(column) for column in columns), strict=True))


def _cells(column: Column) -> list[Any]:
    values = column.values if column.values.dtype == object else _finite(column.values)
    if isinstance(values, list):
        cells = values
    else:
        cells = values.tolist() if values.dtype == object else _shortest(values)
    if column.nulls is not None:
        for row in np.flatnonzero(column.nulls).tolist():
            cells[row] = None
    return cells
