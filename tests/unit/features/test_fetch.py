"""From keys to stored values: one batch a store, the cache before it, statuses behind it."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from kirana.features.cache.feature_cache import FeatureCache
from kirana.features.fetch import Fetcher
from tests.unit.features.counted_store import (
    MISSING,
    ONE,
    TWO,
    UNAVAILABLE,
    Clock,
    CountedStore,
    key_of,
    ok,
    read,
    read_of,
    settle,
    soon,
    write,
)

pytestmark = pytest.mark.usefixtures("inmost_loops")


@pytest.fixture
def store() -> CountedStore:
    made = CountedStore()
    made.set(ONE, k1=1, k2=2, k3=3)
    made.set(TWO, k1=11, k2=12)
    return made


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


async def test_several_groups_are_one_batch(store: CountedStore, any_fetcher: Fetcher) -> None:
    found = await any_fetcher.fetch([ONE, TWO], ["1", "3", "9"])
    assert read_of(found[0], ONE) == [ok(1), ok(3), MISSING]
    assert read_of(found[1], TWO) == [ok(11), MISSING, MISSING]
    assert store.batches == [[key_of(g, k) for g in (ONE, TWO) for k in ("1", "3", "9")]]


async def test_only_what_is_not_cached_is_fetched_in_one_batch(
    store: CountedStore, fetcher: Fetcher
) -> None:
    await fetcher.fetch([ONE], ["2", "1"])
    await fetcher.fetch([TWO], ["9"])
    store.calls.clear()
    one, two = await fetcher.fetch([ONE, TWO], ["1", "9", "2"])
    assert read_of(one, ONE) == [ok(1), MISSING, ok(2)]
    assert read_of(two, TWO) == [ok(11), MISSING, ok(12)]
    assert store.batches == [[key_of(ONE, "9"), key_of(TWO, "1"), key_of(TWO, "2")]]


async def test_what_was_read_is_read_again_only_when_it_is_not_fresh(
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


async def test_what_is_missing_is_remembered_as_missing(
    store: CountedStore, fetcher: Fetcher, clock: Clock
) -> None:
    for _ in range(3):
        assert await read(fetcher, ["8", "9"]) == [MISSING, MISSING]
    assert len(store.calls) == 1
    clock.now += 10.0
    store.set(ONE, k9=9)
    assert await read(fetcher, ["8", "9"]) == [MISSING, ok(9)]


async def test_no_keys_are_no_rows_and_nothing_is_asked(
    store: CountedStore, any_fetcher: Fetcher
) -> None:
    found = await any_fetcher.fetch([ONE, TWO], [])
    assert [read_of(each, g) for each, g in zip(found, (ONE, TWO), strict=True)] == [[], []]
    assert await any_fetcher.fetch([], ["1"]) == []
    assert await any_fetcher.fetch([], []) == []
    any_fetcher.written(ONE.name, [])
    assert store.asked == []


async def test_it_is_told_which_rows_were_cached(fetcher: Fetcher) -> None:
    await read(fetcher, ["2", "9"])
    (first,) = await fetcher.fetch([ONE], ["1", "2", "9", "3"])
    assert first.cached is not None
    assert sorted(np.arange(4)[first.cached].tolist()) == [1, 2]
    (again,) = await fetcher.fetch([ONE], ["3", "2", "1"])
    assert again.cached is not None
    assert np.arange(3)[again.cached].tolist() == [0, 1, 2]


async def test_without_a_cache_nothing_is_kept(store: CountedStore) -> None:
    fetcher = Fetcher(store, None)
    assert await read(fetcher, ["1", "9"]) == [ok(1), MISSING]
    write(store, fetcher, ONE, "1", 5)
    store.set(ONE, k9=9)
    assert await read(fetcher, ["1", "9"]) == [ok(5), ok(9)]


async def test_a_write_forgets_what_was_cached_of_its_own_group_alone(
    store: CountedStore, fetcher: Fetcher
) -> None:
    await fetcher.fetch([ONE, TWO], ["1", "2", "9"])
    write(store, fetcher, ONE, "1", 100)
    write(store, fetcher, ONE, "9", 109)
    store.calls.clear()
    one, two = await fetcher.fetch([ONE, TWO], ["1", "2", "9"])
    assert read_of(one, ONE) == [ok(100), ok(2), ok(109)]
    assert read_of(two, TWO) == [ok(11), ok(12), MISSING]
    assert store.asked == [key_of(ONE, "1"), key_of(ONE, "9")]


# a store that does not answer


async def test_only_what_is_not_cached_is_unavailable(
    store: CountedStore, fetcher: Fetcher
) -> None:
    await read(fetcher, ["1", "9"])
    await read(fetcher, ["2"], TWO)
    store.down = True
    one, two = await fetcher.fetch([ONE, TWO], ["2", "1", "9"])
    assert read_of(one, ONE) == [UNAVAILABLE, ok(1), MISSING]
    assert read_of(two, TWO) == [ok(12), UNAVAILABLE, UNAVAILABLE]
    assert one.unavailable is not None
    assert one.unavailable.tolist() == [0]


async def test_where_all_is_cached_the_store_is_not_missed(
    store: CountedStore, fetcher: Fetcher
) -> None:
    await fetcher.fetch([ONE, TWO], ["1", "9"])
    store.down = True
    one, two = await fetcher.fetch([ONE, TWO], ["9", "1"])
    assert (read_of(one, ONE), read_of(two, TWO)) == ([MISSING, ok(1)], [MISSING, ok(11)])
    assert one.unavailable is None
    assert two.unavailable is None


async def test_what_could_not_be_fetched_is_not_remembered(
    store: CountedStore, any_fetcher: Fetcher
) -> None:
    store.down = True
    for _ in range(2):
        assert await read(any_fetcher, ["1", "9"]) == [UNAVAILABLE, UNAVAILABLE]
    assert len(store.calls) == 2
    store.down = False
    assert await read(any_fetcher, ["1", "9"]) == [ok(1), MISSING]


async def test_who_waits_for_a_fetch_that_fails_is_told_so(
    store: CountedStore, fetcher: Fetcher
) -> None:
    store.paused = True
    readers = [asyncio.create_task(read(fetcher, ["1"])) for _ in range(3)]
    await settle()
    store.answer(0, fails=True)
    assert [await soon(each) for each in readers] == [[UNAVAILABLE]] * 3
    store.resume()
    assert await read(fetcher, ["1"]) == [ok(1)]


@pytest.mark.parametrize("keys", [["1", "2"], ["2", "1"]], ids=" then ".join)
@pytest.mark.parametrize("order", [[0, 1], [1, 0]], ids=["theirs first", "mine first"])
async def test_what_another_has_fetched_is_there_though_ones_own_fetch_failed(
    store: CountedStore, fetcher: Fetcher, keys: list[str], order: list[int]
) -> None:
    store.paused = True
    other = asyncio.create_task(read(fetcher, ["1"]))
    await settle()
    mine = asyncio.create_task(read(fetcher, keys))
    await settle()
    assert store.batches == [[key_of(ONE, "1")], [key_of(ONE, "2")]]
    for at in order:
        store.answer(at, fails=at == 1)
        await settle()
    assert await soon(other) == [ok(1)]
    assert dict(zip(keys, await soon(mine), strict=True)) == {"1": ok(1), "2": UNAVAILABLE}


async def test_only_what_a_node_has_that_is_away_is_unavailable(
    store: CountedStore, any_fetcher: Fetcher
) -> None:
    store.away = {key_of(ONE, "2"), key_of(TWO, "1")}
    one, two = await any_fetcher.fetch([ONE, TWO], ["1", "2", "none"])
    assert read_of(one, ONE) == [ok(1), UNAVAILABLE, MISSING]
    assert read_of(two, TWO) == [UNAVAILABLE, ok(12), MISSING]
    assert one.reason == two.reason == "a node is down"
    store.away = set()
    one, two = await any_fetcher.fetch([ONE, TWO], ["1", "2", "none"])
    assert read_of(one, ONE) == [ok(1), ok(2), MISSING]
    assert read_of(two, TWO) == [ok(11), ok(12), MISSING]


async def test_what_is_away_is_neither_kept_nor_remembered_as_absent(
    store: CountedStore, fetcher: Fetcher
) -> None:
    store.away = {key_of(ONE, "2")}
    store.paused = True
    waiting = [asyncio.create_task(read(fetcher, ["1", "2", "3"])) for _ in range(3)]
    await settle()
    store.resume()
    assert await asyncio.gather(*waiting) == [[ok(1), UNAVAILABLE, ok(3)]] * 3
    assert len(store.calls) == 1
    assert await read(fetcher, ["1", "2"]) == [ok(1), UNAVAILABLE]
    assert store.batches[1:] == [[key_of(ONE, "2")]]
