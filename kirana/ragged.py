"""Byte strings of different lengths, stored one after the other in one array.

This avoids one Python object per string.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Positions = npt.NDArray[np.int64]


def positions_of(starts: Positions, sizes: Positions) -> Positions:
    """Return the position of each byte of some strings in the array that holds the strings.

    String i begins at `starts[i]` and has `sizes[i]` bytes. The result is int64[sum of sizes],
    string after string.
    """
    ends = np.cumsum(sizes)
    total = int(ends[-1]) if len(ends) else 0
    return np.repeat(starts - (ends - sizes), sizes) + np.arange(total)


def gather_table(data: Bytes, starts: Positions, size: int) -> Bytes:
    """Return the strings of `size` bytes that begin at `starts`, copied to uint8[strings, size]."""
    table: Bytes = data[starts[:, None] + np.arange(size)]
    return table


def cut(data: Bytes, ends: Positions) -> list[bytes]:
    """Return all strings in `data` as `bytes` objects.

    String i ends before `ends[i]`, where the next string begins. The first string begins at 0.
    """
    joined, positions = data.tobytes(), ends.tolist()
    return [joined[start:end] for start, end in zip([0, *positions], positions, strict=False)]
