"""A circuit breaker: a database that does not answer is left alone for a while.

Without it every request would wait for the whole timeout while a database is away.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from kirana.errors import Unavailable

MAX_FAILURES = 3
PAUSE_S = 1.0


class Breaker:
    """Opens after `MAX_FAILURES` in a row; then one caller in `PAUSE_S` may try again."""

    def __init__(self, what: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._what = what
        self._clock = clock
        self._failures = 0
        self._closed_until = 0.0
        self._failed = self._opened = self._refused = 0

    @property
    def open(self) -> bool:
        return self._failures >= MAX_FAILURES

    def check(self) -> None:
        """Raise `Unavailable` at once while the database is left alone."""
        if not self.open:
            return
        now = self._clock()
        if now < self._closed_until:
            self._refused += 1
            raise Unavailable(
                f"{self._what} did not answer a moment ago: calls are refused for up to a second"
            )
        self._closed_until = now + PAUSE_S

    def health(self) -> dict[str, Any]:
        """Return its state, and how often calls failed, it opened, and calls were refused."""
        return {
            "state": "open" if self.open else "closed",
            "failed": self._failed,
            "opened": self._opened,
            "refused": self._refused,
        }

    def succeeded(self) -> None:
        self._failures = 0

    def failed(self) -> None:
        self._failures += 1
        self._failed += 1
        self._opened += self._failures == MAX_FAILURES
        self._closed_until = self._clock() + PAUSE_S
