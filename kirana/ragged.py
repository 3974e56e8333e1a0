"""Strings of bytes of any length, side by side in one array: no object a string."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Places = npt.NDArray[np.int64]


def places_of(starts: Places, sizes: Places) -> Places:
    """Return the places of all bytes of strings that begin at `starts`, one after the other."""
    ends = np.cumsum(sizes)
    total = int(ends[-1]) if len(ends) else 0
    return np.repeat(starts - (ends - sizes), sizes) + np.arange(total)


def table_of_equal(data: Bytes, starts: Places, size: int) -> Bytes:
    """Return strings of one size as the rows of a table."""
    found: Bytes = data[starts[:, None] + np.arange(size)]
    return found


def cut(data: Bytes, ends: Places) -> list[bytes]:
    """Return the strings, each up to its place in `ends`, as objects."""
    joined, places = data.tobytes(), ends.tolist()
    return [joined[start:end] for start, end in zip([0, *places], places, strict=False)]
