"""The time at which a store may drop a row by itself.

This is some time after the row's expiry, so that reads find the row expired rather than missing.
"""

from __future__ import annotations

import numpy as np

from kirana.stores.rows import RowBlock, Times

MIN_GRACE_S = 60
"""Minimum time in seconds between the expiry of a row and the time when a store may drop it."""


def drop_at_ms(block: RowBlock) -> Times:
    """Return when a store may drop each row, in Unix milliseconds; 0 = never.

    The time is the expiry of the row plus a grace period: a tenth of the row's time to live, but
    at least `MIN_GRACE_S` seconds.
    """
    expiry = block.expiry_s.astype(np.int64)
    ttl_s = expiry - (block.event_time_ms // np.uint64(1000)).astype(np.int64)
    times = (expiry + np.maximum(ttl_s // 10, MIN_GRACE_S)) * 1000
    return np.where(expiry == 0, 0, times)
