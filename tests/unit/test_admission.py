"""`Admission`: the order of starts, refusals of late requests, and the time between starts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from kirana.admission import (
    ALWAYS_WAITING,
    BLOCKED_S,
    BURST_S,
    FORGOTTEN_S,
    QUEUE_SECONDS,
    STANDING_S,
    TURN_S,
    Admission,
)
from kirana.errors import Overloaded
from kirana.metrics import Metrics
from tests.busy_threads import BusyThreads, busy_threads
from tests.clock import Clock
from tests.waiting import wait_until

FAR = 1e9
"""A deadline that never passes."""


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def admission(clock: Clock, metrics: Metrics) -> Admission:
    return Admission(metrics, clock=clock)


class Requests:
    """Requests that arrive at one admission. `started` has the numbers of those that started."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self.started: list[int] = []
        self.tasks: list[asyncio.Task[None]] = []

    async def arrive(self, count: int, deadline: float = FAR) -> None:
        """Let `count` requests arrive in one iteration of the event loop."""
        first = len(self.tasks)
        for number in range(first, first + count):
            self.tasks.append(asyncio.create_task(self._run(number, deadline)))
        await asyncio.sleep(0)

    async def _run(self, number: int, deadline: float) -> None:
        await self._admission.enter(deadline)
        self.started.append(number)

    def refused(self) -> list[int]:
        return [
            number
            for number, task in enumerate(self.tasks)
            if task.done() and isinstance(task.exception(), Overloaded)
        ]


@pytest.fixture
async def busy() -> AsyncIterator[BusyThreads]:
    """Yield threads that are busy, so that no request starts until they are released."""
    async with busy_threads() as threads:
        yield threads


async def start_five(requests: Requests, clock: Clock) -> None:
    """Let requests start, one every 10 ms, until five have."""
    while len(requests.started) < 5:
        clock.now += 0.01
        await asyncio.sleep(0)


async def test_the_first_request_starts_at_once(admission: Admission) -> None:
    await asyncio.wait_for(admission.enter(FAR), 10)
    assert admission.waiting == 0


async def test_requests_start_in_order_and_the_loop_goes_round_between_two_starts(
    admission: Admission,
) -> None:
    requests = Requests(admission)
    await requests.arrive(5)
    rounds = 0
    while len(requests.started) < 5:
        before = len(requests.started)
        await asyncio.sleep(0)
        assert len(requests.started) <= before + 1
        rounds += 1
    assert requests.started == [0, 1, 2, 3, 4]
    assert rounds >= 4


async def test_no_request_starts_while_much_work_is_in_threads(
    admission: Admission, busy: BusyThreads
) -> None:
    requests = Requests(admission)
    await requests.arrive(2)
    await asyncio.sleep(0.02)
    assert requests.started == []
    await busy.release()
    await wait_until(lambda: requests.started == [0, 1], "both start")


async def test_the_last_sixteen_requests_may_wait_and_earlier_ones_are_refused_at_the_limit(
    admission: Admission, busy: BusyThreads, clock: Clock, metrics: Metrics
) -> None:
    requests = Requests(admission)
    await requests.arrive(ALWAYS_WAITING + 3)
    clock.now += BURST_S + 0.01
    await wait_until(lambda: requests.refused() == [0, 1, 2], "the first three are refused")
    await busy.release()
    await asyncio.gather(*requests.tasks[3:])
    assert requests.started == list(range(3, ALWAYS_WAITING + 3))
    buckets = metrics.buckets(QUEUE_SECONDS)
    assert sum(buckets["refused",]) == 3
    assert sum(buckets["started",]) == ALWAYS_WAITING


async def test_a_burst_may_wait_longer_than_a_standing_queue(
    admission: Admission, busy: BusyThreads, clock: Clock
) -> None:
    requests = Requests(admission)
    await requests.arrive(ALWAYS_WAITING + 1)
    clock.now += STANDING_S + 0.01
    await asyncio.sleep(0.02)
    assert requests.refused() == []
    clock.now += BURST_S
    await wait_until(lambda: requests.refused() == [0], "the first has waited too long")
    await requests.arrive(ALWAYS_WAITING)
    clock.now += STANDING_S + 0.01
    await wait_until(
        lambda: len(requests.refused()) == ALWAYS_WAITING + 1, "the standing queue is refused"
    )
    await busy.release()
    await asyncio.gather(*requests.tasks, return_exceptions=True)


async def test_refusals_leave_time_for_work(
    admission: Admission, busy: BusyThreads, clock: Clock
) -> None:
    """While the clock stands still, refusals end when the credit is spent."""
    requests = Requests(admission)
    await requests.arrive(1_000)
    clock.now += 1
    await wait_until(lambda: bool(requests.refused()), "refusals begin")
    await asyncio.sleep(0.02)
    some = len(requests.refused())
    assert some < 100
    await busy.release()
    await wait_until(lambda: len(requests.started) == ALWAYS_WAITING, "the last sixteen start")
    for _ in range(10):
        clock.now += 1
        await asyncio.sleep(0.005)
    await wait_until(
        lambda: len(requests.refused()) > some, "the credit grows with the time that passes"
    )
    for task in requests.tasks:
        task.cancel()
    await asyncio.gather(*requests.tasks, return_exceptions=True)


async def test_a_request_whose_deadline_passed_while_it_waited_never_starts(
    admission: Admission, busy: BusyThreads, clock: Clock
) -> None:
    requests = Requests(admission)
    await requests.arrive(1, deadline=clock.now + 0.1)
    await requests.arrive(1)
    clock.now += 0.2
    await busy.release()
    await wait_until(lambda: bool(requests.started), "the other one starts")
    assert requests.started == [1]
    assert not requests.tasks[0].done()
    requests.tasks[0].cancel()


async def test_a_cancelled_request_leaves_the_queue(
    admission: Admission, busy: BusyThreads
) -> None:
    requests = Requests(admission)
    await requests.arrive(3)
    requests.tasks[1].cancel()
    await busy.release()
    await wait_until(lambda: requests.started == [0, 2], "the others start")
    assert admission.waiting == 0


class TestArrive:
    async def test_a_request_may_arrive_while_few_wait(
        self, admission: Admission, busy: BusyThreads, clock: Clock
    ) -> None:
        requests = Requests(admission)
        await requests.arrive(ALWAYS_WAITING - 1)
        clock.now += 60
        admission.arrive(FAR)
        await busy.release()
        await asyncio.gather(*requests.tasks)

    async def test_a_request_that_would_wait_too_long_is_refused_on_arrival(
        self, admission: Admission, clock: Clock
    ) -> None:
        """The expected wait follows from the number of requests that wait, and from their pace."""
        requests = Requests(admission)
        await requests.arrive(60)
        admission.arrive(FAR)
        await start_five(requests, clock)
        with pytest.raises(Overloaded, match=r"^5\d requests .* wait about 5\d0 ms"):
            admission.arrive(FAR)
        assert requests.refused() == []
        await asyncio.gather(*requests.tasks)

    async def test_refusals_on_arrival_leave_time_for_work(
        self, admission: Admission, clock: Clock
    ) -> None:
        requests = Requests(admission)
        await requests.arrive(60)
        await start_five(requests, clock)
        outcomes = []
        for _ in range(100):
            try:
                admission.arrive(FAR)
                outcomes.append("queued")
            except Overloaded:
                outcomes.append("refused")
        assert outcomes[0] == "refused"
        assert outcomes[-1] == "queued"
        await asyncio.gather(*requests.tasks)


@pytest.mark.parametrize(("work_s", "expected"), [(TURN_S / 3.9, 3), (2 * TURN_S, 1)])
async def test_small_requests_start_together_and_large_ones_one_by_one(
    clock: Clock, work_s: float, expected: int
) -> None:
    """The pace that is learned decides how many requests start in one turn."""
    requests = Requests(Admission(by_age=False, clock=clock))
    await requests.arrive(100)
    together = 1
    for _ in range(30):
        before = len(requests.started)
        clock.now += work_s * together
        await asyncio.sleep(0)
        together = max(len(requests.started) - before, 1)
    assert together == expected
    await asyncio.gather(*requests.tasks)


class TestDeadlines:
    async def test_a_request_that_could_not_end_in_time_is_refused_on_arrival(
        self, admission: Admission, clock: Clock
    ) -> None:
        """Few wait, but the deadline is closer than their pace allows."""
        requests = Requests(admission)
        await requests.arrive(10)
        await start_five(requests, clock)
        admission.arrive(clock.now + 0.1)
        with pytest.raises(Overloaded, match="a new one would wait about"):
            admission.arrive(clock.now + 0.03)
        await asyncio.gather(*requests.tasks)

    async def test_a_request_without_time_for_its_work_never_starts(
        self, admission: Admission, clock: Clock
    ) -> None:
        """Its turn comes 5 ms before its deadline, and the others took 10 ms each."""
        requests = Requests(admission)
        await requests.arrive(10)
        await start_five(requests, clock)
        deadline = clock.now + 0.01 * admission.waiting + 0.005
        last = asyncio.create_task(admission.enter(deadline))
        await asyncio.sleep(0)
        while admission.waiting:
            clock.now += 0.01
            await asyncio.sleep(0)
        await asyncio.gather(*requests.tasks)
        assert not last.done()
        last.cancel()

    async def test_the_pace_is_forgotten_after_a_while_without_a_queue(
        self, admission: Admission, clock: Clock
    ) -> None:
        requests = Requests(admission)
        await requests.arrive(10)
        await start_five(requests, clock)
        await asyncio.gather(*requests.tasks)
        clock.now += FORGOTTEN_S + 1
        again = Requests(admission)
        await again.arrive(3)
        admission.arrive(clock.now + 0.01)
        await asyncio.gather(*again.tasks)


async def test_requests_start_although_threads_stay_busy_for_long(
    admission: Admission, busy: BusyThreads, clock: Clock
) -> None:
    requests = Requests(admission)
    await requests.arrive(2)
    await asyncio.sleep(0.01)
    assert requests.started == []
    clock.now += BLOCKED_S
    await wait_until(lambda: requests.started == [0], "the first starts")
    clock.now += BLOCKED_S
    await wait_until(lambda: requests.started == [0, 1], "the second starts")


async def test_cancelled_requests_do_not_count_as_waiting(
    admission: Admission, busy: BusyThreads
) -> None:
    requests = Requests(admission)
    await requests.arrive(ALWAYS_WAITING)
    for task in requests.tasks[1:]:
        task.cancel()
    await asyncio.gather(*requests.tasks[1:], return_exceptions=True)
    assert admission.waiting == 1
    await busy.release()
    await asyncio.gather(requests.tasks[0])
    assert admission.waiting == 0


async def test_admitted_requests_are_not_refused_for_their_age(
    busy: BusyThreads, clock: Clock
) -> None:
    admission = Admission(by_age=False, clock=clock)
    requests = Requests(admission)
    await requests.arrive(ALWAYS_WAITING + 5)
    clock.now += 10 * BURST_S
    admission.arrive(FAR)
    await busy.release()
    await asyncio.gather(*requests.tasks)
    assert sorted(requests.started) == list(range(ALWAYS_WAITING + 5))
