"""Strings of bytes of any length, side by side in one array: no object a string."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Positions = npt.NDArray[np.int64]


def positions_of(starts: Positions, sizes: Positions) -> Positions:
    """Return the positions of all bytes of strings that begin at `starts`, one after the other."""
    ends = np.cumsum(sizes)
    total = int(ends[-1]) if len(ends) else 0
    return np.repeat(starts - (ends - sizes), sizes) + np.arange(total)


def table_of_equal(data: Bytes, starts: Positions, size: int) -> Bytes:
    """Return strings of one size as the rows of a table."""
    found: Bytes = data[starts[:, None] + np.arange(size)]
    return found


def cut(data: Bytes, ends: Positions) -> list[bytes]:
    """Return the strings, each up to its position in `ends`, as objects."""
    joined, positions = data.tobytes(), ends.tolist()
    return [joined[start:end] for start, end in zip([0, *positions], positions, strict=False)]
