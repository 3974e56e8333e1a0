"""The check of event times that a write brings."""

from __future__ import annotations

import numpy as np

from kirana.clock import FUTURE, MAX_FUTURE_MS
from kirana.errors import InvalidInput
from kirana.schema import Array


def check_event_times(event_time_ms: Array, now_ms: int) -> None:
    """Raise `InvalidInput` if an event time is more than `MAX_FUTURE_MS` after `now_ms`."""
    future_positions = np.flatnonzero(event_time_ms > now_ms + MAX_FUTURE_MS)
    if len(future_positions):
        position = int(future_positions[0])
        raise InvalidInput(f"{event_time_ms[position]} is {FUTURE}", field=("event_time", position))
