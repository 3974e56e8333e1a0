"""Two sides in turn, A B A B ..., so that a machine that drifts drifts for both."""

from __future__ import annotations

import gc
import time
from collections.abc import Awaitable, Callable

from bench.figures import Figure

Side = Callable[[], Awaitable[object]]
Rate = Callable[[], float]

ROUNDS = 31
SECONDS_A_SIDE = 0.12


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
    calls = await _calls(side)
    return sorted([await _time(side, calls) for _ in range(5)])[2]


async def _calls(side: Side) -> int:
    """Warm up, and find how many calls fill a round."""
    await _time(side, 3)
    return max(int(SECONDS_A_SIDE / await _time(side, 10)), 3)


async def _time(side: Side, calls: int) -> float:
    began = time.perf_counter()
    for _ in range(calls):
        await side()
    return (time.perf_counter() - began) / calls
