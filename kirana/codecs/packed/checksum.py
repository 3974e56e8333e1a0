"""Computes the CRC-32 of many rows at once.

The checksums are equal to those of `zlib.crc32`. Each step takes in one byte of every row.
"""

from __future__ import annotations

from zlib import crc32

import numpy as np
import numpy.typing as npt

_ALL_ONES = np.uint32(0xFFFFFFFF)
_BYTE = np.uint32(0xFF)
_EIGHT = np.uint32(8)

# The lookup table of CRC-32, with one entry per byte value. zlib does not publish its table, but an
# entry is the checksum of the inverted byte, XOR 0xFF000000.
_TABLE = np.array(
    [crc32(bytes([byte ^ 0xFF])) ^ 0xFF000000 for byte in range(256)], dtype=np.uint32
)


def crc32_rows(rows: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint32]:
    """Return one checksum per row of `rows`, `uint8[rows, bytes]`."""
    crcs = np.full(len(rows), _ALL_ONES, dtype=np.uint32)
    for column in np.ascontiguousarray(rows.T):
        crcs = _TABLE[(crcs ^ column) & _BYTE] ^ (crcs >> _EIGHT)
    return crcs ^ _ALL_ONES
