"""CRC-32 of many rows at once, as zlib has it: a step of all rows for each of their bytes."""

from __future__ import annotations

from zlib import crc32

import numpy as np
import numpy.typing as npt

_ALL_ONES = np.uint32(0xFFFFFFFF)
_BYTE = np.uint32(0xFF)
_EIGHT = np.uint32(8)

# zlib's sum of one byte is its step from all ones, with what is left of them and turned round
_STEPS = np.array(
    [crc32(bytes([each ^ 0xFF])) ^ 0xFF000000 for each in range(256)], dtype=np.uint32
)


def crc32_rows(rows: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint32]:
    """Return the checksum of each row of a table (rows, bytes)."""
    sums = np.full(len(rows), _ALL_ONES, dtype=np.uint32)
    for column in np.ascontiguousarray(rows.T):
        sums = _STEPS[(sums ^ column) & _BYTE] ^ (sums >> _EIGHT)
    return sums ^ _ALL_ONES
