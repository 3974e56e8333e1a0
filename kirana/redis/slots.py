"""Slots of a Redis Cluster, of many keys at once: CRC-16 of the key, or of the tag in it."""

from __future__ import annotations

from binascii import crc_hqx
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from redis.crc import key_slot

from kirana import native
from kirana.ragged import Bytes, cut

SLOTS = 16_384

_EIGHT = np.uint16(8)
_STEPS = np.array([crc_hqx(bytes([each]), 0) for each in range(256)], dtype=np.uint16)


def key_slots(keys: Sequence[bytes]) -> list[int]:
    """Return the slot of each key."""
    if native.COMPILED:
        return native.keys.slots(keys if isinstance(keys, list) else list(keys))
    return list(map(key_slot, keys))


def joined_slots(
    keys: Bytes, ends: npt.NDArray[np.int64], prefix: bytes = b""
) -> npt.NDArray[np.intp]:
    """Return the slot of each key; `keys` are joined, each up to its position in `ends`.

    `prefix` stands before each of them.
    """
    if b"{" in prefix or (keys == ord("{")).any():
        return np.array(key_slots([prefix + key for key in cut(keys, ends)]), dtype=np.intp)
    first = np.uint16(crc_hqx(prefix, 0))
    slots = np.empty(len(ends), dtype=np.intp)
    lengths = np.diff(ends, prepend=0)
    for length in np.unique(lengths).tolist():
        rows = np.flatnonzero(lengths == length)
        starts = ends[rows] - length
        sums = np.full(len(rows), first, dtype=np.uint16)
        for at in range(length):
            byte = keys[starts + at]
            sums = _STEPS[(sums >> _EIGHT) ^ byte] ^ (sums << _EIGHT)
        slots[rows] = sums % SLOTS
    return slots
