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

TURN_S = 0.001
"""How many seconds of work may start in one iteration of the event loop."""

MAX_WORKS_IN_THREADS = 4
"""No request starts while this much work of others is in threads, where it competes for the GIL."""

BLOCKED_S = 0.5
"""Such work stops starts for this long at most. It may be waiting for a slow disk."""

FORGOTTEN_S = 1.0
"""The measured pace is forgotten after this many seconds in which no request waited."""

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
    """The place of one request in the queue. `turn` gets a result when the request may start.

    It is `queued` until it starts, is found late, or is passed over. It is `left` if its request
    was cancelled before that.
    """

    turn: asyncio.Future[None]
    arrived: float
    deadline: float
    queued: bool = True
    left: bool = False


class Admission:
    """The queue of one process. Times are in seconds of `clock`.

    In one iteration of the event loop, one request starts, or as many small ones as fit into
    `TURN_S`. Between two such turns, the loop reads what has arrived, and continues requests that
    have started. If `by_age` is False, requests are not refused for their age: they were admitted
    before, by another process.
    """

    def __init__(
        self,
        metrics: Metrics | None = None,
        *,
        by_age: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._metrics = metrics or Metrics()
        self._by_age = by_age
        self._clock = clock
        self._waiting: deque[_Place] = deque()
        self._left = 0
        """How many places in `_waiting` are left."""
        self._late: deque[_Place] = deque()
        self._scheduled = False
        self._empty_at = self._credited_at = clock()
        self._credit = float(_MAX_CREDIT)
        self._started = 0
        """How many requests have started in this turn."""
        self._turn_at = 0.0
        self._turn_starts = 1
        self._blocked_at: float | None = None
        self._interval_s = 0.0

    @property
    def waiting(self) -> int:
        """How many requests are in the queue, with those that will be refused."""
        return len(self._waiting) - self._left + len(self._late)

    def arrive(self, deadline: float) -> None:
        """Raise `Overloaded` if a request that arrives now would wait too long.

        That is so if it could not end before its deadline. Behind `ALWAYS_WAITING` others, it is
        also so if the request would be refused for its age. This costs less than a refusal after
        the request has waited. To leave time for work, it refuses at most `REFUSALS_PER_S`.
        """
        ahead = len(self._waiting) - self._left
        if not ahead:
            return
        now = self._clock()
        wait_s = ahead * self._interval_s
        too_old = self._by_age and ahead >= ALWAYS_WAITING and wait_s > self._limit_s(now)
        # The request itself takes about as long as each of those before it. One more, because the
        # pace is an average.
        too_late = wait_s + 2 * self._interval_s > deadline - now
        if (too_old or too_late) and self._spend_credit(now):
            self._metrics.observe(QUEUE_SECONDS, 0.0, "refused")
            raise Overloaded(
                f"{ahead} requests are waiting: a new one would wait about {wait_s * 1000:.0f} ms"
            )

    def may_refuse(self) -> bool:
        """Return whether one more request may be refused now, and count it."""
        return self._spend_credit(self._clock())

    async def enter(self, deadline: float) -> None:
        """Wait until a request that has arrived may start.

        After `deadline`, the request never starts: the caller must cancel this coroutine then.
        Raise `Overloaded` if the request has waited too long.
        """
        if (
            not self._waiting
            and self._started < self._starts_per_turn()
            and request_threads.pending < MAX_WORKS_IN_THREADS
        ):
            self._started += 1
            self._schedule(0)
            return
        now = self._clock()
        if not self._waiting:
            if now - self._empty_at > FORGOTTEN_S:
                self._interval_s = 0.0
            self._empty_at = now
        place = _Place(asyncio.get_running_loop().create_future(), now, deadline)
        self._waiting.append(place)
        self._schedule(_RECHECK_S)
        try:
            await place.turn
        except asyncio.CancelledError:
            place.left = place.queued
            self._left += place.left
            raise

    def _starts_per_turn(self) -> int:
        return max(int(TURN_S / self._interval_s), 1) if self._interval_s else 1

    def _schedule(self, delay_s: float) -> None:
        """Check the queue after `delay_s` seconds; if it is 0, in the loop's next iteration.

        No-op if a check is scheduled already.
        """
        if self._scheduled:
            return
        self._scheduled = True
        loop = asyncio.get_running_loop()
        if delay_s:
            loop.call_later(delay_s, self._check)
        else:
            loop.call_soon(self._check)

    def _check(self) -> None:
        """Start the next requests if they may start, and refuse requests that are late."""
        self._scheduled = False
        self._started = 0
        if not self._waiting and not self._late:
            return
        now = self._clock()
        self._find_late(now)
        self._refuse_late(now)
        self._start_next(now)
        if not self._waiting:
            self._empty_at = now
        if self._started:
            self._schedule(0)
        elif self._waiting or self._late:
            self._schedule(_RECHECK_S)

    def _limit_s(self, now: float) -> float:
        """Return how long requests may wait at present."""
        return BURST_S if now - self._empty_at < BURST_S else STANDING_S

    def _pop(self) -> _Place:
        """Remove the first place from the queue."""
        place = self._waiting.popleft()
        place.queued = False
        self._left -= place.left
        return place

    def _find_late(self, now: float) -> None:
        """Remove cancelled requests from the front of the queue, and move those that are late."""
        limit_s = self._limit_s(now)
        waiting = self._waiting
        while waiting and waiting[0].turn.done():
            self._pop()
        if not self._by_age:
            return
        while len(waiting) - self._left > ALWAYS_WAITING and now - waiting[0].arrived > limit_s:
            self._late.append(self._pop())

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

    def _start_next(self, now: float) -> None:
        """Start the first requests in the queue that still have time."""
        if self._is_blocked(now):
            return
        allowed = self._starts_per_turn()
        needed_s = min(self._interval_s, STANDING_S)
        while self._waiting and self._started < allowed:
            place = self._pop()
            if not place.turn.done() and now + needed_s < place.deadline:
                if not self._started:
                    self._measure_interval(now)
                self._started += 1
                self._metrics.observe(QUEUE_SECONDS, now - place.arrived, "started")
                place.turn.set_result(None)
        if self._started:
            self._turn_starts = self._started

    def _is_blocked(self, now: float) -> bool:
        """Return whether work in threads stops starts now."""
        if request_threads.pending < MAX_WORKS_IN_THREADS:
            self._blocked_at = None
            return False
        if self._blocked_at is None:
            self._blocked_at = now
        if now - self._blocked_at < BLOCKED_S:
            return True
        self._blocked_at = now
        return False

    def _measure_interval(self, now: float) -> None:
        """Learn the time per start since the last turn, if the queue was not empty since."""
        if self._turn_at > self._empty_at:
            interval_s = (now - self._turn_at) / self._turn_starts
            if self._interval_s:
                interval_s = self._interval_s + _NEW_SHARE * (interval_s - self._interval_s)
            self._interval_s = interval_s
        self._turn_at = now
