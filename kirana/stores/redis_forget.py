"""When Redis may forget a row: a grace period after it has expired, so that it is seen to have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from kirana.stores.base import RowBlock, RowCodec

MIN_GRACE_S = 60

Times = npt.NDArray[np.int64]


def forget_ms(values: Sequence[bytes], codec: RowCodec) -> list[int]:
    """Return a time in ms for each value, 0 for never."""
    expiry = np.array([codec.expiry_s(value) for value in values], dtype=np.int64)
    times = np.array([codec.order(value)[0] for value in values], dtype=np.uint64)
    found: list[int] = _with_grace(expiry, times).tolist()
    return found


def block_forget_ms(block: RowBlock) -> Times:
    """Return a time in ms for each row, 0 for never."""
    return _with_grace(block.expiry_s, block.event_time_ms)


def _with_grace(expiry_s: npt.NDArray[Any], event_time_ms: npt.NDArray[np.uint64]) -> Times:
    """A row outlives its expiry by a tenth of its time."""
    expiry = expiry_s.astype(np.int64)
    ttl_s = expiry - (event_time_ms // np.uint64(1000)).astype(np.int64)
    found = (expiry + np.maximum(ttl_s // 10, MIN_GRACE_S)) * 1000
    return np.where(expiry == 0, 0, found)
