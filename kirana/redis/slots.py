"""Compute the cluster slots of many keys at once.

A slot is the CRC-16 of the key, or of its hash tag (the part in braces), modulo 16384.
"""

from __future__ import annotations

from binascii import crc_hqx
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from redis.crc import key_slot

from kirana import native
from kirana.ragged import Bytes, cut

SLOTS = 16_384
"""The number of slots of a cluster."""

_EIGHT = np.uint16(8)
_STEPS = np.array([crc_hqx(bytes([byte]), 0) for byte in range(256)], dtype=np.uint16)
"""The CRC-16 for each byte value, from which longer checksums are computed byte by byte."""


def key_slots(keys: Sequence[bytes]) -> list[int]:
    """Return one slot per key."""
    if native.COMPILED:
        return native.keys.slots(keys if isinstance(keys, list) else list(keys))
    return list(map(key_slot, keys))


def joined_slots(
    keys: Bytes, ends: npt.NDArray[np.int64], prefix: bytes = b""
) -> npt.NDArray[np.intp]:
    """Return one slot per key, for keys that consist of `prefix` and a string in `keys`.

    `keys` holds the strings one after the other, and `ends` the position where each string ends.
    """
    # A brace may begin a hash tag. The loop below can't handle hash tags: it computes the checksum
    # of the whole key.
    if b"{" in prefix or (keys == ord("{")).any():
        return np.array(key_slots([prefix + key for key in cut(keys, ends)]), dtype=np.intp)
    crc_of_prefix = np.uint16(crc_hqx(prefix, 0))
    slots = np.empty(len(ends), dtype=np.intp)
    lengths = np.diff(ends, prepend=0)
    for length in np.unique(lengths).tolist():
        rows = np.flatnonzero(lengths == length)
        starts = ends[rows] - length
        crcs = np.full(len(rows), crc_of_prefix, dtype=np.uint16)
        for offset in range(length):
            byte = keys[starts + offset]
            crcs = _STEPS[(crcs >> _EIGHT) ^ byte] ^ (crcs << _EIGHT)
        slots[rows] = crcs % SLOTS
    return slots
