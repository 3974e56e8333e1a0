"""When Redis may forget a row: a grace period after it has expired, so that it is seen to have."""

from __future__ import annotations

import numpy as np

from kirana.stores.rows import RowBlock, Times

MIN_GRACE_S = 60


def forget_ms(block: RowBlock) -> Times:
    """Return a time in ms for each row, 0 for never: a tenth of its TTL after it has expired."""
    expiry = block.expiry_s.astype(np.int64)
    ttl_s = expiry - (block.event_time_ms // np.uint64(1000)).astype(np.int64)
    found = (expiry + np.maximum(ttl_s // 10, MIN_GRACE_S)) * 1000
    return np.where(expiry == 0, 0, found)
