"""The comparison of the clock of a machine with that of a database."""

from __future__ import annotations

import pytest

from kirana.errors import Unavailable
from kirana.stores.clock import CHECKED_FOR_S, DISAGREED_FOR_S, StoreClock


class Clocks:
    """The clock of this machine, that of a store, and how long a reply of the store takes."""

    def __init__(self) -> None:
        self.now_s = 1_000_000.0
        self.elapsed_s = 0.0
        self.store_ahead_s = 0.0
        self.reply_s = 0.0
        self.reads = 0
        self.compared = StoreClock(
            "store", self._read, now_s=lambda: self.now_s, monotonic_s=lambda: self.elapsed_s
        )

    async def _read(self) -> float:
        self.reads += 1
        time_s = self.now_s + self.store_ahead_s
        self.pass_s(self.reply_s)
        return time_s

    def pass_s(self, seconds: float) -> None:
        self.now_s += seconds
        self.elapsed_s += seconds


@pytest.mark.parametrize("ahead_s", [-59.0, 0.0, 59.0])
async def test_clocks_that_agree_are_compared_now_and_then(ahead_s: float) -> None:
    clocks = Clocks()
    clocks.store_ahead_s = ahead_s
    for _ in range(3):
        await clocks.compared.check()
    assert clocks.reads == 1
    clocks.pass_s(CHECKED_FOR_S)
    await clocks.compared.check()
    assert clocks.reads == 2
    assert clocks.compared.health() == {}


@pytest.mark.parametrize(
    ("ahead_s", "words"), [(-90.0, "90 s ahead of that of store"), (7_200.0, "7,200 s behind")]
)
async def test_writes_are_refused_until_the_clocks_agree(ahead_s: float, words: str) -> None:
    clocks = Clocks()
    clocks.store_ahead_s = ahead_s
    with pytest.raises(Unavailable, match=words):
        await clocks.compared.check()
    assert words in clocks.compared.health()["clock"]
    clocks.store_ahead_s = 0.0
    with pytest.raises(Unavailable):
        await clocks.compared.check()
    clocks.pass_s(DISAGREED_FOR_S)
    await clocks.compared.check()
    assert clocks.compared.health() == {}


async def test_a_slow_reply_is_no_difference_of_clocks() -> None:
    clocks = Clocks()
    clocks.reply_s = 300.0
    await clocks.compared.check()
