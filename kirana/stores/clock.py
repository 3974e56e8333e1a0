"""Compare the clock of this machine with that of a database, before rows are written to it.

Rows are ordered by event times, which come from the clocks of writers. A row from a clock that is
ahead could not be replaced until that time, so a machine with such a clock must not write.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any

from kirana.errors import Unavailable

MAX_DIFFERENCE_S = 60.0
"""How far the two clocks may be apart for a write to be accepted."""

CHECKED_FOR_S = 10.0
"""For how long clocks that agree are not compared again."""

DISAGREED_FOR_S = 1.0
"""For how long clocks that differ are not compared again."""


class StoreClock:
    """Compares the clock of this machine with that of the database `name`.

    `read_s` returns the time of the database in Unix seconds. `now_s` and `monotonic_s` return
    those of this machine.
    """

    def __init__(
        self,
        name: str,
        read_s: Callable[[], Awaitable[float]],
        *,
        now_s: Callable[[], float] = time.time,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name = name
        self._read_s = read_s
        self._now_s = now_s
        self._monotonic_s = monotonic_s
        self._ahead_s = 0.0
        self._compare_at = monotonic_s()

    async def check(self) -> None:
        """Raise `Unavailable` if the clocks differ by more than `MAX_DIFFERENCE_S`."""
        await self.compare()
        if self.problem is not None:
            raise Unavailable(self.problem)

    async def compare(self) -> None:
        """Compare the clocks, unless this was done a moment ago."""
        if self._monotonic_s() < self._compare_at:
            return
        before_s = self._now_s()
        stored_s = await self._read_s()
        after_s = self._now_s()
        # The reply may have taken long. Some moment between the two local times belongs to it.
        closest_s = min(max(stored_s, before_s), after_s)
        self._ahead_s = closest_s - stored_s
        differs = abs(self._ahead_s) > MAX_DIFFERENCE_S
        self._compare_at = self._monotonic_s() + (DISAGREED_FOR_S if differs else CHECKED_FOR_S)

    @property
    def problem(self) -> str | None:
        """Why this machine may not write, or None if it may."""
        if abs(self._ahead_s) <= MAX_DIFFERENCE_S:
            return None
        direction = "ahead of" if self._ahead_s > 0 else "behind"
        return (
            f"the clock of this machine is {abs(self._ahead_s):,.0f} s {direction} that of "
            f"{self._name}: nothing is written until they agree"
        )

    def health(self) -> dict[str, Any]:
        """Return the problem for health reports, if there is one."""
        return {} if self.problem is None else {"clock": self.problem}


async def clock_answers(clock: StoreClock) -> bool:
    """Compare the clocks for the health report. Return whether the database says its time."""
    try:
        await clock.compare()
    except Unavailable:
        return False
    return True
