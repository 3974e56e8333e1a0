"""`Fetcher`: one read of the store per batch, the cache in front of it, and row statuses."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from kirana.features.cache.feature_cache import FeatureCache
from kirana.features.fetch import Fetcher
from tests.clock import Clock
from tests.unit.features.counted_store import (
    MISSING,
    ONE,
    TWO,
    UNAVAILABLE,
    CountedStore,
    key_of,
    ok,
    read,
    read_of,
    settle,
    soon,
    write,
)

pytestmark = pytest.mark.usefixtures("inner_loops")


@pytest.fixture
def store() -> CountedStore:
    store = CountedStore()
    store.set(ONE, k1=1, k2=2, k3=3)
    store.set(TWO, k1=11, k2=12)
    return store


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def fetcher(store: CountedStore, clock: Clock) -> Fetcher:
    return Fetcher(store, FeatureCache(1 << 20, 10.0, clock=clock))


@pytest.fixture(params=["with a cache", "without"])
def any_fetcher(request: pytest.FixtureRequest, store: CountedStore) -> Fetcher:
    cache = FeatureCache(1 << 20, 10.0) if request.param == "with a cache" else None
    return Fetcher(store, cache)


async def test_several_groups_are_read_in_one_batch(
    store: CountedStore, any_fetcher: Fetcher
) -> None:
    fetched = await any_fetcher.fetch([ONE, TWO], ["1", "3", "9"])
    assert read_of(fetched[0], ONE) == [ok(1), ok(3), MISSING]
    assert read_of(fetched[1], TWO) == [ok(11), MISSING, MISSING]
    assert store.batches == [[key_of(g, k) for g in (ONE, TWO) for k in ("1", "3", "9")]]


async def test_only_uncached_rows_are_fetched_and_in_one_batch(
    store: CountedStore, fetcher: Fetcher
) -> None:
    await fetcher.fetch([ONE], ["2", "1"])
    await fetcher.fetch([TWO], ["9"])
    store.calls.clear()
    one, two = await fetcher.fetch([ONE, TWO], ["1", "9", "2"])
    assert read_of(one, ONE) == [ok(1), MISSING, ok(2)]
    assert read_of(two, TWO) == [ok(11), MISSING, ok(12)]
    assert store.batches == [[key_of(ONE, "9"), key_of(TWO, "1"), key_of(TWO, "2")]]


async def test_a_cached_row_is_fetched_again_once_it_is_not_fresh(
    store: CountedStore, fetcher: Fetcher, clock: Clock
) -> None:
    for _ in range(3):
        assert await read(fetcher, ["1", "2"]) == [ok(1), ok(2)]
    store.set(ONE, k1=5)
    clock.now += 9.99
    assert await read(fetcher, ["1"]) == [ok(1)]
    assert len(store.calls) == 1
    clock.now += 0.01
    assert await read(fetcher, ["2", "1"]) == [ok(2), ok(5)]
    assert len(store.calls) == 2


async def test_a_missing_row_is_cached_as_missing(
    store: CountedStore, fetcher: Fetcher, clock: Clock
) -> None:
    for _ in range(3):
        assert await read(fetcher, ["8", "9"]) == [MISSING, MISSING]
    assert len(store.calls) == 1
    clock.now += 10.0
    store.set(ONE, k9=9)
    assert await read(fetcher, ["8", "9"]) == [MISSING, ok(9)]


async def test_fetching_no_keys_reads_nothing(store: CountedStore, any_fetcher: Fetcher) -> None:
    one, two = await any_fetcher.fetch([ONE, TWO], [])
    assert [read_of(one, ONE), read_of(two, TWO)] == [[], []]
    assert await any_fetcher.fetch([], ["1"]) == []
    assert await any_fetcher.fetch([], []) == []
    any_fetcher.invalidate(ONE.name, [])
    assert store.keys_read == []


async def test_a_fetch_reports_which_rows_were_cached(fetcher: Fetcher) -> None:
    await read(fetcher, ["2", "9"])
    (first,) = await fetcher.fetch([ONE], ["1", "2", "9", "3"])
    assert first.cached is not None
    assert sorted(np.arange(4)[first.cached].tolist()) == [1, 2]
    (again,) = await fetcher.fetch([ONE], ["3", "2", "1"])
    assert again.cached is not None
    assert np.arange(3)[again.cached].tolist() == [0, 1, 2]


async def test_without_a_cache_every_read_goes_to_the_store(store: CountedStore) -> None:
    fetcher = Fetcher(store, None)
    assert await read(fetcher, ["1", "9"]) == [ok(1), MISSING]
    write(store, fetcher, ONE, "1", 5)
    store.set(ONE, k9=9)
    assert await read(fetcher, ["1", "9"]) == [ok(5), ok(9)]


async def test_a_write_evicts_its_keys_from_its_own_group_only(
    store: CountedStore, fetcher: Fetcher
) -> None:
    await fetcher.fetch([ONE, TWO], ["1", "2", "9"])
    write(store, fetcher, ONE, "1", 100)
    write(store, fetcher, ONE, "9", 109)
    store.calls.clear()
    one, two = await fetcher.fetch([ONE, TWO], ["1", "2", "9"])
    assert read_of(one, ONE) == [ok(100), ok(2), ok(109)]
    assert read_of(two, TWO) == [ok(11), ok(12), MISSING]
    assert store.keys_read == [key_of(ONE, "1"), key_of(ONE, "9")]


# a store that does not answer


async def test_only_uncached_rows_are_unavailable(store: CountedStore, fetcher: Fetcher) -> None:
    await read(fetcher, ["1", "9"])
    await read(fetcher, ["2"], TWO)
    store.down = True
    one, two = await fetcher.fetch([ONE, TWO], ["2", "1", "9"])
    assert read_of(one, ONE) == [UNAVAILABLE, ok(1), MISSING]
    assert read_of(two, TWO) == [ok(12), UNAVAILABLE, UNAVAILABLE]
    assert one.unavailable is not None
    assert one.unavailable.tolist() == [0]


async def test_fully_cached_reads_need_no_store(store: CountedStore, fetcher: Fetcher) -> None:
    await fetcher.fetch([ONE, TWO], ["1", "9"])
    store.down = True
    one, two = await fetcher.fetch([ONE, TWO], ["9", "1"])
    assert (read_of(one, ONE), read_of(two, TWO)) == ([MISSING, ok(1)], [MISSING, ok(11)])
    assert one.unavailable is None
    assert two.unavailable is None


async def test_unavailable_rows_are_not_cached(store: CountedStore, any_fetcher: Fetcher) -> None:
    store.down = True
    for _ in range(2):
        assert await read(any_fetcher, ["1", "9"]) == [UNAVAILABLE, UNAVAILABLE]
    assert len(store.calls) == 2
    store.down = False
    assert await read(any_fetcher, ["1", "9"]) == [ok(1), MISSING]


async def test_all_callers_that_wait_for_a_failed_fetch_get_unavailable(
    store: CountedStore, fetcher: Fetcher
) -> None:
    store.paused = True
    readers = [asyncio.create_task(read(fetcher, ["1"])) for _ in range(3)]
    await settle()
    store.answer(0, fails=True)
    assert [await soon(reader) for reader in readers] == [[UNAVAILABLE]] * 3
    store.resume()
    assert await read(fetcher, ["1"]) == [ok(1)]


@pytest.mark.parametrize("keys", [["1", "2"], ["2", "1"]], ids=" then ".join)
@pytest.mark.parametrize("order", [[0, 1], [1, 0]], ids=["other first", "own first"])
async def test_a_failed_fetch_does_not_affect_rows_fetched_by_another_caller(
    store: CountedStore, fetcher: Fetcher, keys: list[str], order: list[int]
) -> None:
    store.paused = True
    other = asyncio.create_task(read(fetcher, ["1"]))
    await settle()
    own = asyncio.create_task(read(fetcher, keys))
    await settle()
    assert store.batches == [[key_of(ONE, "1")], [key_of(ONE, "2")]]
    for position in order:
        store.answer(position, fails=position == 1)
        await settle()
    assert await soon(other) == [ok(1)]
    assert dict(zip(keys, await soon(own), strict=True)) == {"1": ok(1), "2": UNAVAILABLE}


async def test_only_the_rows_of_a_node_that_is_down_are_unavailable(
    store: CountedStore, any_fetcher: Fetcher
) -> None:
    store.unreachable = {key_of(ONE, "2"), key_of(TWO, "1")}
    one, two = await any_fetcher.fetch([ONE, TWO], ["1", "2", "none"])
    assert read_of(one, ONE) == [ok(1), UNAVAILABLE, MISSING]
    assert read_of(two, TWO) == [UNAVAILABLE, ok(12), MISSING]
    assert one.reason == two.reason == "a node is down"
    store.unreachable = set()
    one, two = await any_fetcher.fetch([ONE, TWO], ["1", "2", "none"])
    assert read_of(one, ONE) == [ok(1), ok(2), MISSING]
    assert read_of(two, TWO) == [ok(11), ok(12), MISSING]


async def test_rows_of_a_node_that_is_down_are_not_cached(
    store: CountedStore, fetcher: Fetcher
) -> None:
    store.unreachable = {key_of(ONE, "2")}
    store.paused = True
    readers = [asyncio.create_task(read(fetcher, ["1", "2", "3"])) for _ in range(3)]
    await settle()
    store.resume()
    assert await asyncio.gather(*readers) == [[ok(1), UNAVAILABLE, ok(3)]] * 3
    assert len(store.calls) == 1
    assert await read(fetcher, ["1", "2"]) == [ok(1), UNAVAILABLE]
    assert store.batches[1:] == [[key_of(ONE, "2")]]
