"""Rules for event times: Unix milliseconds, at most `MAX_FUTURE_MS` in the future."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

MAX_FUTURE_MS = 5 * 60_000
"""How far in the future an event time may be. The clocks of machines differ."""

FUTURE = "more than five minutes in the future"
"""The words in errors for a time that is further ahead than `MAX_FUTURE_MS`."""

LAST_SECONDS = 10**11
"""Times from 1 to this one are taken for seconds. As milliseconds, this time is in March 1973."""

LAST_MILLISECONDS = 10**14
"""Times after this one are taken for microseconds or nanoseconds. This time is in the year 5138."""

_LAST_MICROSECONDS = 10**17


def unit_problem(time_ms: int) -> str | None:
    """Return a message if a time seems to be in a unit other than milliseconds, or None.

    The result is also None for 0 and for negative times.
    """
    if 1 <= time_ms <= LAST_SECONDS:
        return f"{time_ms} looks like seconds: send milliseconds, {time_ms * 1_000}"
    if time_ms > _LAST_MICROSECONDS:
        return f"{time_ms} looks like nanoseconds: send milliseconds, {time_ms // 1_000_000}"
    if time_ms > LAST_MILLISECONDS:
        return f"{time_ms} looks like microseconds: send milliseconds, {time_ms // 1_000}"
    return None


def first_wrong_unit(times_ms: npt.NDArray[np.int64]) -> int | None:
    """Return the position of the first time for which `unit_problem` returns a message, or None."""
    wrong = ((times_ms >= 1) & (times_ms <= LAST_SECONDS)) | (times_ms > LAST_MILLISECONDS)
    return int(np.argmax(wrong)) if wrong.any() else None
