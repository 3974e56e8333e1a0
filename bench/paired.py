"""Measure two sides in turn, A B A B ..., so that a drift of the machine affects both."""

from __future__ import annotations

import gc
import time
from collections.abc import Awaitable, Callable
from statistics import median

from bench.figures import Figure

Side = Callable[[], Awaitable[object]]
Rate = Callable[[], float]

ROUNDS = 31
SECONDS_PER_SIDE = 0.12
STEP_ROUNDS = 15
"""Rounds of `seconds_of_each`."""


async def compare(a: Side, b: Side) -> Figure:
    """Time both sides in this process, without garbage collection.

    The figure is B's time / A's time.
    """
    calls_a, calls_b = await _calls(a), await _calls(b)
    gc.collect()
    gc.disable()
    try:
        pairs = [(await _time(a, calls_a), await _time(b, calls_b)) for _ in range(ROUNDS)]
    finally:
        gc.enable()
    return Figure.of_times(pairs)


def compare_rates(a: Rate, b: Rate, rounds: int) -> Figure:
    """Call both sides in turn for their calls per second. The figure is A's rate / B's rate.

    The first pair is a warm-up and does not count.
    """
    pairs = [(a(), b()) for _ in range(rounds + 1)]
    return Figure.of_rates(pairs[1:])


async def seconds_per_call(side: Side) -> float:
    """Return the seconds per call, as the median of several rounds."""
    (seconds,) = await seconds_of_each(side)
    return seconds


async def seconds_of_each(*sides: Side) -> list[float]:
    """Return the median seconds per call for each side. The sides are measured in turn."""
    calls = [await _calls(side) for side in sides]
    rounds = [
        [await _time(side, count) for side, count in zip(sides, calls, strict=True)]
        for _ in range(STEP_ROUNDS)
    ]
    return [median(times) for times in zip(*rounds, strict=True)]


async def _calls(side: Side) -> int:
    """Warm up, and return how many calls take `SECONDS_PER_SIDE`, at least three."""
    await _time(side, 3)
    return max(int(SECONDS_PER_SIDE / await _time(side, 10)), 3)


async def _time(side: Side, calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        await side()
    return (time.perf_counter() - start) / calls
