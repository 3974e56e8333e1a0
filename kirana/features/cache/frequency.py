"""How often keys were asked for lately, roughly and in little memory: a count-min sketch."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from kirana import native

Hashes = npt.NDArray[np.uint64]

_MULTIPLIERS = np.array(
    [0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0xD6E8FEB86659FD93],
    dtype=np.uint64,
)
_MOST = 255


class FrequencySketch:
    """Counts up to 255; a count is never too low, except that all are halved from time to time."""

    def __init__(self, keys: int) -> None:
        bits = max((4 * keys - 1).bit_length(), 8)
        self._shift = np.uint64(64 - bits)
        self._counts = np.zeros((len(_MULTIPLIERS), 1 << bits), dtype=np.uint8)

    @property
    def nbytes(self) -> int:
        return self._counts.nbytes

    def add(self, hashes: Hashes) -> npt.NDArray[np.uint8]:
        """Count each key once more; return the counts."""
        if native.COMPILED:
            return native.sketch.add(self._counts, _MULTIPLIERS, int(self._shift), _MOST, hashes)
        found = np.full(len(hashes), 255, dtype=np.uint8)
        for counts, multiplier in zip(self._counts, _MULTIPLIERS, strict=True):
            positions = (hashes * multiplier) >> self._shift
            more = np.minimum(counts[positions], _MOST - 1) + np.uint8(1)
            counts[positions] = more
            np.minimum(found, more, out=found)
        return found

    def halve(self) -> None:
        self._counts >>= 1


def hashes_of(keys: list[str]) -> Hashes:
    """Return the hash of each key, as the sketch counts it."""
    if native.COMPILED:
        return native.sketch.hashes_of(keys)
    return np.fromiter(map(hash, keys), dtype=np.int64, count=len(keys)).view(np.uint64)
