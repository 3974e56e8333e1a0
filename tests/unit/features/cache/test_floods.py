"""What is asked for once does not push out what is hot."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from kirana.features.cache.feature_cache import FeatureCache
from kirana.features.cache.group import SLOT_BYTES
from tests.unit.features.cache.cached import FRESH_S, ROW, STATS, read
from tests.unit.features.counted_store import Clock

pytestmark = pytest.mark.usefixtures("inmost_loops")

SLOTS = 5_000
HOT = 20_000
ONE_OFF = 50_000


class Traffic:
    """Readers of rows through a cache that is a quarter as large as what is asked for."""

    def __init__(self) -> None:
        self.cache = FeatureCache(SLOTS * (ROW + SLOT_BYTES), FRESH_S, clock=Clock())
        self._random = np.random.default_rng(3)
        shares = 1 / np.arange(1, HOT + 1)
        self._shares = shares / shares.sum()

    def ask(self, keys: Sequence[str]) -> int:
        """Return how many were there; the others are fetched."""
        missing = [keys[at] for at in self.cache.look_up(STATS, keys).missing]
        self.cache.fill(STATS, missing, [b"x" * ROW] * len(missing))
        return len(keys) - len(missing)

    def hot(self, requests: int) -> float:
        """Return the hit rate of so many requests for 100 keys after a Zipf law."""
        hits = asked = 0
        for _ in range(requests):
            picked = self._random.choice(HOT, 100, p=self._shares)
            keys = [*dict.fromkeys(map(str, picked.tolist()))]
            hits += self.ask(keys)
            asked += len(keys)
        return hits / asked


def one_offs(size: int) -> list[list[str]]:
    return [[f"once{n}" for n in range(at, at + size)] for at in range(0, ONE_OFF, size)]


def test_a_flood_of_one_off_keys_among_hot_ones_leaves_the_hit_rate_as_it_is() -> None:
    traffic = Traffic()
    traffic.hot(400)
    before = traffic.hot(100)
    during = []
    for keys in one_offs(100):
        traffic.ask(keys)
        during.append(traffic.hot(1))
    assert np.mean(during) > 0.95 * before
    assert traffic.hot(100) > 0.95 * before


def test_a_flood_of_one_off_keys_at_once_leaves_most_of_what_is_hot() -> None:
    traffic = Traffic()
    traffic.hot(500)
    before = traffic.hot(100)
    for keys in one_offs(500):
        assert traffic.ask(keys) == 0
    assert traffic.hot(20) > 0.8 * before
    assert traffic.cache.counts.refused > ONE_OFF // 2


def test_what_becomes_hot_gets_in() -> None:
    traffic = Traffic()
    traffic.hot(300)
    new = [f"new{at}" for at in range(200)]
    for _ in range(30):
        traffic.ask(new)
        traffic.hot(2)
    assert traffic.ask(new) > 190


def test_what_is_hot_no_more_gives_way_however_hot_it_was() -> None:
    cache = FeatureCache(50 * (ROW + SLOT_BYTES), FRESH_S, clock=Clock())
    before, after = ([f"{era}{at}" for at in range(50)] for era in ("old", "new"))
    hits = 0
    for keys in (before, after):
        for _ in range(400):
            missing = [keys[at] for at in cache.look_up(STATS, keys).missing]
            cache.fill(STATS, missing, [b"x" * ROW] * len(missing))
        hits = len(read(cache, STATS, keys))
    assert hits > 45
