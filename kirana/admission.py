"""The queue of a process: requests start one after another, and those that wait too long do not.

Without it, each request that arrives would start at once. Under more load than the process can
handle, all of them would be slow, and the event loop would be too busy to read new requests.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from kirana.errors import Overloaded
from kirana.loop import request_threads
from kirana.metrics import Histogram, Metrics

BURST_S = 0.25
"""How long a request may wait after a burst: while the queue was empty in the last `BURST_S`."""

STANDING_S = 0.05
"""How long a request may wait in a queue that was not empty in the last `BURST_S` seconds.

This queue does not absorb a burst. It is as long as it may be, and only adds latency.
"""

ALWAYS_WAITING = 16
"""This many requests may wait until their deadline, however long they have waited.

Sixteen clients that send one request after another are a normal load, even of slow requests.
"""

MAX_WORKS_IN_THREADS = 4
"""No request starts while this much work of others is in threads, where it competes for the GIL."""

REFUSALS_PER_S = 2_000
"""How many requests may be refused per second. On the direct port, that takes a quarter of a core.

A client that sends its next request right after a refusal would otherwise leave no time for work.
"""

_MAX_CREDIT = 64
_NEW_SHARE = 0.05
"""The share of a new measurement in the expected time between two starts."""

_RECHECK_S = 0.002
"""Seconds between two checks of a queue in which no request may start or be refused now."""

QUEUE_SECONDS = Histogram(
    "kirana_queue_seconds",
    "How long requests in the queue waited. Those that started on arrival are left out.",
    ("outcome",),
    (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0),
)


@dataclass(slots=True)
class _Place:
    """The place of one request in the queue. `turn` gets a result when the request may start."""

    turn: asyncio.Future[None]
    arrived: float
    deadline: float


class Admission:
    """The queue of one process. Times are in seconds of `clock`.

    At most one request starts per iteration of the event loop. So between two starts, the loop
    reads what has arrived, and continues requests that have started.
    """

    def __init__(
        self, metrics: Metrics | None = None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._metrics = metrics or Metrics()
        self._clock = clock
        self._waiting: deque[_Place] = deque()
        self._late: deque[_Place] = deque()
        self._scheduled = False
        self._empty_at = self._credited_at = clock()
        self._credit = float(_MAX_CREDIT)
        self._started_at = 0.0
        self._interval_s = 0.0

    @property
    def waiting(self) -> int:
        """How many requests are in the queue, with those that will be refused."""
        return len(self._waiting) + len(self._late)

    def arrive(self) -> None:
        """Raise `Overloaded` if a request that arrives now would wait too long.

        This costs less than a refusal after the request has waited. To leave time for work, it
        refuses at most `REFUSALS_PER_S`.
        """
        ahead = len(self._waiting)
        if ahead < ALWAYS_WAITING:
            return
        now = self._clock()
        expected_s = ahead * self._interval_s
        if expected_s > self._limit_s(now) and self._spend_credit(now):
            self._metrics.observe(QUEUE_SECONDS, 0.0, "refused")
            raise Overloaded(
                f"{ahead} requests are waiting: a new one would wait about "
                f"{expected_s * 1000:.0f} ms"
            )

    async def enter(self, deadline: float) -> None:
        """Wait until a request that has arrived may start.

        After `deadline`, the request never starts: the caller must cancel this coroutine then.
        Raise `Overloaded` if the request has waited too long.
        """
        if not self._scheduled and request_threads.pending < MAX_WORKS_IN_THREADS:
            self._schedule(0)
            return
        now = self._clock()
        if not self._waiting:
            self._empty_at = now
        place = _Place(asyncio.get_running_loop().create_future(), now, deadline)
        self._waiting.append(place)
        if not self._scheduled:
            self._schedule(_RECHECK_S)
        await place.turn

    def _schedule(self, delay_s: float) -> None:
        """Check the queue after `delay_s` seconds; if it is 0, in the loop's next iteration."""
        self._scheduled = True
        loop = asyncio.get_running_loop()
        if delay_s:
            loop.call_later(delay_s, self._check)
        else:
            loop.call_soon(self._check)

    def _check(self) -> None:
        """Start the next request if one may start, and refuse requests that are late."""
        self._scheduled = False
        if not self._waiting and not self._late:
            return
        now = self._clock()
        self._find_late(now)
        self._refuse_late(now)
        started = self._start_next(now)
        if not self._waiting:
            self._empty_at = now
        if started:
            self._schedule(0)
        elif self._waiting or self._late:
            self._schedule(_RECHECK_S)

    def _limit_s(self, now: float) -> float:
        """Return how long requests may wait at present."""
        return BURST_S if now - self._empty_at < BURST_S else STANDING_S

    def _find_late(self, now: float) -> None:
        """Move the requests that have waited too long from the front of the queue."""
        limit_s = self._limit_s(now)
        waiting = self._waiting
        while len(waiting) > ALWAYS_WAITING and now - waiting[0].arrived > limit_s:
            self._late.append(waiting.popleft())

    def _refuse_late(self, now: float) -> None:
        """Refuse late requests, as many as `REFUSALS_PER_S` allows."""
        while self._late and (self._late[0].turn.done() or self._spend_credit(now)):
            place = self._late.popleft()
            if place.turn.done():
                continue
            waited_s = now - place.arrived
            self._metrics.observe(QUEUE_SECONDS, waited_s, "refused")
            place.turn.set_exception(
                Overloaded(
                    f"the request waited {waited_s * 1000:.0f} ms behind others and did not start"
                )
            )

    def _spend_credit(self, now: float) -> bool:
        """Return whether one more request may be refused now, and count it."""
        earned = (now - self._credited_at) * REFUSALS_PER_S
        self._credit, self._credited_at = min(self._credit + earned, _MAX_CREDIT), now
        if self._credit < 1:
            return False
        self._credit -= 1
        return True

    def _start_next(self, now: float) -> bool:
        """Start the first request in the queue that still has time. Return whether one started."""
        if request_threads.pending >= MAX_WORKS_IN_THREADS:
            return False
        while self._waiting:
            place = self._waiting.popleft()
            if not place.turn.done() and now < place.deadline:
                self._measure_interval(now)
                self._metrics.observe(QUEUE_SECONDS, now - place.arrived, "started")
                place.turn.set_result(None)
                return True
        return False

    def _measure_interval(self, now: float) -> None:
        """Learn the time between two starts, if the queue was not empty between them."""
        if self._started_at > self._empty_at:
            interval_s = now - self._started_at
            if self._interval_s:
                interval_s = self._interval_s + _NEW_SHARE * (interval_s - self._interval_s)
            self._interval_s = interval_s
        self._started_at = now
