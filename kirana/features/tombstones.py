"""Tombstones, which stand for deleted rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from kirana.codecs import CODECS
from kirana.schema import FeatureGroup
from kirana.stores import RowBlock

TOMBSTONE_S = 8 * 86_400
"""Seconds until a tombstone expires: a day longer than a Kafka topic keeps messages.

If an older write of the row is replayed from a topic before then, the row stays deleted.
"""


def tombstones(
    group: FeatureGroup, keys: Sequence[str], event_time_ms: npt.NDArray[np.uint64], now_s: int
) -> RowBlock:
    """Return one tombstone per key text, for a store. They expire `TOMBSTONE_S` after `now_s`."""
    codec, expires_at_s = CODECS[group.codec], now_s + TOMBSTONE_S
    values = codec.tombstones(event_time_ms, expires_at_s)
    expiry_s = np.full(len(event_time_ms), expires_at_s, dtype=np.uint32)
    return RowBlock.joined(group.name, codec, keys, values, expiry_s, event_time_ms, deleted=True)
