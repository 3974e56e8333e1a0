"""Approximate counts of how often keys were used recently, in a count-min sketch."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from kirana import native

Hashes = npt.NDArray[np.uint64]

_MULTIPLIERS = np.array(
    [0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0xD6E8FEB86659FD93],
    dtype=np.uint64,
)
_MAX_COUNT = 255


class FrequencySketch:
    """A count-min sketch for about `keys` distinct keys, with counts up to 255.

    A count can be too high if keys share counters, and too low after `halve` or if it would exceed
    255. If a key occurs several times in one call of `add`, the Python code counts it only once.
    """

    def __init__(self, keys: int) -> None:
        bits = max((4 * keys - 1).bit_length(), 8)
        self._shift = np.uint64(64 - bits)
        self._counts = np.zeros((len(_MULTIPLIERS), 1 << bits), dtype=np.uint8)

    @property
    def nbytes(self) -> int:
        """The memory of the counts, in bytes."""
        return self._counts.nbytes

    def add(self, hashes: Hashes) -> npt.NDArray[np.uint8]:
        """Add one to the count of each key; return the new counts, one per hash."""
        if native.COMPILED:
            return native.sketch.add(
                self._counts, _MULTIPLIERS, int(self._shift), _MAX_COUNT, hashes
            )
        lowest = np.full(len(hashes), 255, dtype=np.uint8)
        for counts, multiplier in zip(self._counts, _MULTIPLIERS, strict=True):
            positions = (hashes * multiplier) >> self._shift
            increased = np.minimum(counts[positions], _MAX_COUNT - 1) + np.uint8(1)
            counts[positions] = increased
            np.minimum(lowest, increased, out=lowest)
        return lowest

    def halve(self) -> None:
        """Halve all counts, so that older uses weigh less."""
        self._counts >>= 1


def hashes_of(keys: list[str]) -> Hashes:
    """Return a 64-bit hash per key: Python's `hash`, as an unsigned number."""
    if native.COMPILED:
        return native.sketch.hashes_of(keys)
    return np.fromiter(map(hash, keys), dtype=np.int64, count=len(keys)).view(np.uint64)
