"""Two sides in turn, A B A B ..., so that a machine that drifts drifts for both."""

from __future__ import annotations

import gc
import time
from collections.abc import Awaitable, Callable
from statistics import median

from bench.figures import Figure

Side = Callable[[], Awaitable[object]]
Rate = Callable[[], float]

ROUNDS = 31
SECONDS_A_SIDE = 0.12
TOGETHER = 15
"""Rounds of what is compared with nothing, or with parts of itself."""


async def compare(a: Side, b: Side) -> Figure:
    """Time both sides in this process: B's time / A's."""
    calls_a, calls_b = await _calls(a), await _calls(b)
    gc.collect()
    gc.disable()
    try:
        pairs = [(await _time(a, calls_a), await _time(b, calls_b)) for _ in range(ROUNDS)]
    finally:
        gc.enable()
    return Figure.of_times(pairs)


def compare_rates(a: Rate, b: Rate, rounds: int) -> Figure:
    """Ask both sides for their calls a second, in turn: A's rate / B's. The first pair warms up."""
    pairs = [(a(), b()) for _ in range(rounds + 1)]
    return Figure.of_rates(pairs[1:])


async def seconds_a_call(side: Side) -> float:
    """Return the median seconds of one call, of several rounds."""
    (found,) = await seconds_together(side)
    return found


async def seconds_together(*sides: Side) -> list[float]:
    """Return the median seconds of one call of each, measured in turn."""
    calls = [await _calls(side) for side in sides]
    rounds = [
        [await _time(side, count) for side, count in zip(sides, calls, strict=True)]
        for _ in range(TOGETHER)
    ]
    return [median(of_side) for of_side in zip(*rounds, strict=True)]


async def _calls(side: Side) -> int:
    """Warm up, and find how many calls fill a round."""
    await _time(side, 3)
    return max(int(SECONDS_A_SIDE / await _time(side, 10)), 3)


async def _time(side: Side, calls: int) -> float:
    began = time.perf_counter()
    for _ in range(calls):
        await side()
    return (time.perf_counter() - began) / calls
