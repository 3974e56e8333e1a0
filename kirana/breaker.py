"""A circuit breaker, which refuses calls to a database that does not answer.

Without it, each call would wait for its timeout while the database does not answer.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from kirana.errors import Unavailable

MAX_FAILURES = 3
PAUSE_S = 1.0


class Breaker:
    """A breaker that opens after `MAX_FAILURES` failures in a row.

    An open breaker lets at most one call through per `PAUSE_S` seconds. A successful call closes
    the breaker. `what` names the database in errors, and `clock` returns seconds.
    """

    def __init__(self, what: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._what = what
        self._clock = clock
        self._failures = 0
        self._refused_until = 0.0
        self._failed = self._opened = self._refused = 0

    @property
    def open(self) -> bool:
        """Whether at least `MAX_FAILURES` calls have failed since the last successful one."""
        return self._failures >= MAX_FAILURES

    def check(self) -> None:
        """Raise `Unavailable` if the breaker is open and the next trial is not due yet.

        A trial is a call that an open breaker lets through. It is due `PAUSE_S` seconds after the
        last failure or trial.
        """
        if not self.open:
            return
        now = self._clock()
        if now < self._refused_until:
            self._refused += 1
            raise Unavailable(
                f"{self._what} did not answer a moment ago: calls are refused until it answers"
            )
        self._refused_until = now + PAUSE_S

    def health(self) -> dict[str, Any]:
        """Return the state, and the numbers of failed calls, openings and refused calls."""
        return {
            "state": "open" if self.open else "closed",
            "failed": self._failed,
            "opened": self._opened,
            "refused": self._refused,
        }

    def succeeded(self) -> None:
        """Record a successful call, which closes the breaker."""
        self._failures = 0

    def failed(self) -> None:
        """Record a failed call. `MAX_FAILURES` of them in a row open the breaker."""
        self._failures += 1
        self._failed += 1
        self._opened += self._failures == MAX_FAILURES
        self._refused_until = self._clock() + PAUSE_S
