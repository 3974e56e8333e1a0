"""The law of time that every way in keeps: milliseconds, and none of the future."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

MAX_FUTURE_MS = 5 * 60_000
"""How far ahead an event may be: clocks differ by minutes, not more."""

LAST_SECONDS = 10**11
"""Up to here a whole number is taken for seconds: as milliseconds it would be before 1973."""

FIRST_MICROSECONDS = 10**14
"""Above this it is taken for microseconds: as milliseconds it would be after the year 5138."""

_FIRST_NANOSECONDS = 10**17


def unit_problem(time_ms: int) -> str | None:
    """Say what is wrong with a time that can't be meant in milliseconds; None if it can.

    0 is a time that is not known.
    """
    if 1 <= time_ms <= LAST_SECONDS:
        return f"{time_ms} looks like seconds: send milliseconds, {time_ms * 1_000}"
    if time_ms > _FIRST_NANOSECONDS:
        return f"{time_ms} looks like nanoseconds: send milliseconds, {time_ms // 1_000_000}"
    if time_ms > FIRST_MICROSECONDS:
        return f"{time_ms} looks like microseconds: send milliseconds, {time_ms // 1_000}"
    return None


def first_of_another_unit(times_ms: npt.NDArray[np.int64]) -> int | None:
    """Return the position of the first time that can't be meant in milliseconds."""
    wrong = ((times_ms >= 1) & (times_ms <= LAST_SECONDS)) | (times_ms > FIRST_MICROSECONDS)
    return int(np.argmax(wrong)) if wrong.any() else None
