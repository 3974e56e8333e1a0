"""The partition of a key, as Kafka's own clients choose it: by the hash murmur2 of its bytes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from kirana.ragged import Bytes

_SEED = np.uint32(0x9747B28C)
_M = np.uint32(0x5BD1E995)


def partitions_of(
    keys: Bytes, ends: npt.NDArray[np.int64], partitions: int
) -> npt.NDArray[np.int64]:
    """Return the partition of each key. `keys` are joined; each ends at its entry of `ends`."""
    return (murmur2(keys, ends) & np.uint32(0x7FFFFFFF)).astype(np.int64) % partitions


def murmur2(keys: Bytes, ends: npt.NDArray[np.int64]) -> npt.NDArray[np.uint32]:
    """Return the hash of each key. All keys are hashed together, four bytes of each at a time."""
    starts = np.concatenate([[0], ends[:-1]]).astype(np.int64) if len(ends) else ends
    sizes = ends - starts
    # Each word is read from four bytes, so that the last ones of the last key need no exception.
    padded = np.concatenate([keys, np.zeros(4, np.uint8)])
    hashes = _SEED ^ sizes.astype(np.uint32)
    with np.errstate(over="ignore"):
        for word in range(int(sizes.max(initial=0)) // 4):
            rows = np.flatnonzero(sizes // 4 > word)
            k = _words(padded, starts[rows] + 4 * word) * _M
            k ^= k >> np.uint32(24)
            hashes[rows] = hashes[rows] * _M ^ k * _M
        left = sizes % 4
        rows = np.flatnonzero(left)
        tails = _words(padded, ends[rows] - left[rows])
        tails &= (np.uint32(1) << (8 * left[rows]).astype(np.uint32)) - np.uint32(1)
        hashes[rows] = (hashes[rows] ^ tails) * _M
        hashes ^= hashes >> np.uint32(13)
        hashes *= _M
    hashes ^= hashes >> np.uint32(15)
    return hashes


def _words(data: Bytes, positions: npt.NDArray[np.int64]) -> npt.NDArray[np.uint32]:
    """Return the four bytes at each position as a little-endian integer."""
    words = np.zeros(len(positions), np.uint32)
    for i in range(4):
        words |= data[positions + i].astype(np.uint32) << np.uint32(8 * i)
    return words
