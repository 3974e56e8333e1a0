"""Keys that are read only once do not evict keys that are read often."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from kirana.features.cache.feature_cache import FeatureCache
from kirana.features.cache.group import SLOT_BYTES
from tests.clock import Clock
from tests.unit.features.cache.cached import FRESH_S, ROW, STATS, read

pytestmark = pytest.mark.usefixtures("inner_loops")

SLOTS = 5_000
HOT = 20_000
ONE_OFF = 50_000


class Traffic:
    """Requests for `HOT` popular keys through a cache with room for a quarter of them."""

    def __init__(self) -> None:
        self.cache = FeatureCache(SLOTS * (ROW + SLOT_BYTES), FRESH_S, clock=Clock())
        self._random = np.random.default_rng(3)
        shares = 1 / np.arange(1, HOT + 1)
        self._shares = shares / shares.sum()

    def request(self, keys: Sequence[str]) -> int:
        """Read keys and cache the missing ones; return how many were cached before."""
        missing = [keys[i] for i in self.cache.look_up(STATS, keys).missing]
        self.cache.fill(STATS, missing, [b"x" * ROW] * len(missing))
        return len(keys) - len(missing)

    def request_hot_keys(self, requests: int) -> float:
        """Return the hit rate of requests for up to 100 keys, drawn from a Zipf distribution."""
        hits = total = 0
        for _ in range(requests):
            picked = self._random.choice(HOT, 100, p=self._shares)
            keys = [*dict.fromkeys(map(str, picked.tolist()))]
            hits += self.request(keys)
            total += len(keys)
        return hits / total


def one_offs(size: int) -> list[list[str]]:
    """Return `ONE_OFF` different keys, grouped into requests of `size` keys."""
    return [[f"once{n}" for n in range(start, start + size)] for start in range(0, ONE_OFF, size)]


def test_one_off_keys_among_hot_keys_lower_the_hit_rate_by_less_than_5_percent() -> None:
    traffic = Traffic()
    traffic.request_hot_keys(400)
    before = traffic.request_hot_keys(100)
    during = []
    for keys in one_offs(100):
        traffic.request(keys)
        during.append(traffic.request_hot_keys(1))
    assert np.mean(during) > 0.95 * before
    assert traffic.request_hot_keys(100) > 0.95 * before


def test_a_burst_of_one_off_keys_leaves_most_hot_keys_cached() -> None:
    traffic = Traffic()
    traffic.request_hot_keys(500)
    before = traffic.request_hot_keys(100)
    for keys in one_offs(500):
        assert traffic.request(keys) == 0
    assert traffic.request_hot_keys(20) > 0.8 * before
    assert traffic.cache.counts.refused > ONE_OFF // 2


def test_keys_that_become_hot_are_cached() -> None:
    traffic = Traffic()
    traffic.request_hot_keys(300)
    new = [f"new{i}" for i in range(200)]
    for _ in range(30):
        traffic.request(new)
        traffic.request_hot_keys(2)
    assert traffic.request(new) > 190


def test_keys_that_are_no_longer_hot_are_replaced() -> None:
    cache = FeatureCache(50 * (ROW + SLOT_BYTES), FRESH_S, clock=Clock())
    old, new = ([f"{era}{i}" for i in range(50)] for era in ("old", "new"))
    hits = 0
    for keys in (old, new):
        for _ in range(400):
            missing = [keys[i] for i in cache.look_up(STATS, keys).missing]
            cache.fill(STATS, missing, [b"x" * ROW] * len(missing))
        hits = len(read(cache, STATS, keys))
    assert hits > 45
