"""Two sides in turn, A B A B ..., so that a machine that drifts drifts for both."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

Side = Callable[[], Awaitable[object]]

ROUNDS = 9
SECONDS_A_SIDE = 0.4


@dataclass(frozen=True, slots=True)
class Ratio:
    """`ratio` is the median over the rounds of B's time / A's time; above 1, A is the faster."""

    ratio: float
    low: float
    high: float
    a_us: float
    b_us: float


async def compare(a: Side, b: Side) -> Ratio:
    """Time both sides in paired rounds; microseconds are medians of one call."""
    calls_a, calls_b = await _calls(a), await _calls(b)
    gc.collect()
    gc.disable()
    try:
        pairs = [(await _time(a, calls_a), await _time(b, calls_b)) for _ in range(ROUNDS)]
    finally:
        gc.enable()
    ratios = [of_b / of_a for of_a, of_b in pairs]
    return Ratio(
        ratio=statistics.median(ratios),
        low=min(ratios),
        high=max(ratios),
        a_us=statistics.median(of_a for of_a, _ in pairs) * 1e6,
        b_us=statistics.median(of_b for _, of_b in pairs) * 1e6,
    )


async def _calls(side: Side) -> int:
    """Warm up, and find how many calls fill a round."""
    await _time(side, 3)
    return max(int(SECONDS_A_SIDE / await _time(side, 10)), 3)


async def _time(side: Side, calls: int) -> float:
    began = time.perf_counter()
    for _ in range(calls):
        await side()
    return (time.perf_counter() - began) / calls
