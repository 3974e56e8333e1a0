"""Concurrent fetches of the same rows, and writes while rows are being fetched."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kirana.features.cache.feature_cache import FeatureCache
from kirana.features.fetch import Fetcher
from tests.clock import Clock
from tests.unit.features.counted_store import (
    MISSING,
    ONE,
    TWO,
    CountedStore,
    Read,
    encode,
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
    """Return a paused store: each read waits until the test answers it."""
    store = CountedStore()
    store.set(ONE, k1=1, k2=2, k3=3)
    store.set(TWO, k1=11)
    store.paused = True
    return store


async def started(fetcher: Fetcher, keys: Sequence[str]) -> asyncio.Task[list[Read]]:
    """Start a read, and let it run until it waits."""
    reader = asyncio.create_task(read(fetcher, keys))
    await settle()
    return reader


@pytest.fixture
def fetcher(store: CountedStore) -> Fetcher:
    return Fetcher(store, FeatureCache(1 << 20, 10.0, clock=Clock()))


async def test_concurrent_misses_of_a_key_are_fetched_once(
    store: CountedStore, fetcher: Fetcher
) -> None:
    readers = [asyncio.create_task(read(fetcher, ["1", "9"])) for _ in range(5)]
    await settle()
    assert store.batches == [[key_of(ONE, "1"), key_of(ONE, "9")]]
    store.answer(0)
    assert [await soon(reader) for reader in readers] == [[ok(1), MISSING]] * 5
    assert await read(fetcher, ["1"]) == [ok(1)]
    assert len(store.calls) == 1


async def test_keys_that_are_being_fetched_are_not_fetched_again(
    store: CountedStore, fetcher: Fetcher
) -> None:
    first = await started(fetcher, ["1", "2"])
    second = await started(fetcher, ["3", "2", "9"])
    third = await started(fetcher, ["9", "1", "3"])
    assert store.batches == [
        [key_of(ONE, "1"), key_of(ONE, "2")],
        [key_of(ONE, "3"), key_of(ONE, "9")],
    ]
    store.answer(1)
    await settle()
    assert [reader.done() for reader in (first, second, third)] == [False] * 3
    store.answer(0)
    assert await soon(first) == [ok(1), ok(2)]
    assert await soon(second) == [ok(3), ok(2), MISSING]
    assert await soon(third) == [MISSING, ok(1), ok(3)]


async def test_the_same_key_in_two_groups_is_two_rows(
    store: CountedStore, fetcher: Fetcher
) -> None:
    first = asyncio.create_task(fetcher.fetch([ONE], ["1"]))
    await settle()
    second = asyncio.create_task(fetcher.fetch([TWO, ONE], ["1"]))
    await settle()
    assert store.batches == [[key_of(ONE, "1")], [key_of(TWO, "1")]]
    store.resume()
    assert read_of((await soon(first))[0], ONE) == [ok(1)]
    two, one = await soon(second)
    assert (read_of(two, TWO), read_of(one, ONE)) == ([ok(11)], [ok(1)])


async def test_cancelling_the_first_caller_does_not_affect_the_second(
    store: CountedStore, fetcher: Fetcher
) -> None:
    first = await started(fetcher, ["1", "2"])
    second = await started(fetcher, ["2", "1"])
    first.cancel()
    await settle()
    assert first.cancelled()
    # The second reader now reads the store itself, once.
    third = await started(fetcher, ["1"])
    assert len(store.calls) == 2
    store.answer(1)
    assert await soon(second) == [ok(2), ok(1)]
    assert await soon(third) == [ok(1)]
    assert await read(fetcher, ["1"]) == [ok(1)]
    assert len(store.calls) == 2


async def test_cancelling_the_second_caller_does_not_affect_the_first(
    store: CountedStore, fetcher: Fetcher
) -> None:
    first = await started(fetcher, ["1"])
    second = await started(fetcher, ["1", "2"])
    second.cancel()
    await settle()
    store.resume()
    assert await soon(first) == [ok(1)]
    assert await read(fetcher, ["2"]) == [ok(2)]


async def test_a_new_caller_is_answered_after_all_earlier_ones_were_cancelled(
    store: CountedStore, fetcher: Fetcher
) -> None:
    readers = [asyncio.create_task(read(fetcher, ["1"])) for _ in range(3)]
    await settle()
    for reader in readers:
        reader.cancel()
    await settle()
    late = await started(fetcher, ["1"])
    store.resume()
    assert await soon(late) == [ok(1)]


# writes while rows are being fetched


async def test_an_old_value_that_arrives_after_a_write_is_not_cached(
    store: CountedStore, fetcher: Fetcher
) -> None:
    early = await started(fetcher, ["1", "2"])
    write(store, fetcher, ONE, "1", 100)
    store.resume()
    assert (await soon(early))[1] == ok(2)
    assert await read(fetcher, ["2", "1"]) == [ok(2), ok(100)]
    # The value of key 2, which was not written, was cached.
    assert store.keys_read.count(key_of(ONE, "2")) == 1


async def test_a_reader_after_a_write_does_not_wait_for_the_old_value(
    store: CountedStore, fetcher: Fetcher
) -> None:
    early = await started(fetcher, ["1"])
    write(store, fetcher, ONE, "1", 100)
    late = await started(fetcher, ["1"])
    store.answer(1)
    assert await soon(late) == [ok(100)]
    store.answer(0)
    await soon(early)
    assert await read(fetcher, ["1"]) == [ok(100)]
    assert len(store.calls) == 2


@pytest.mark.parametrize("order", [[0, 1], [1, 0]], ids=["old first", "new first"])
async def test_a_batch_shares_a_fetch_only_for_keys_not_written_meanwhile(
    store: CountedStore, fetcher: Fetcher, order: list[int]
) -> None:
    """Key 1 is written while both keys are being fetched; key 2 is not fetched again."""
    for number in range(100, 120):
        store.calls.clear()
        early = asyncio.create_task(read(fetcher, ["1", "2"]))
        await settle()
        write(store, fetcher, ONE, "1", number)
        late = asyncio.create_task(read(fetcher, ["1", "2"]))
        await settle()
        assert store.batches == [[key_of(ONE, "1"), key_of(ONE, "2")], [key_of(ONE, "1")]]
        for position in order:
            store.answer(position)
            await settle()
        await soon(early)
        assert await soon(late) == [ok(number), ok(2)]
        fetcher.invalidate(ONE.name, ["1", "2"])


async def test_an_old_fetch_that_ends_does_not_end_the_newer_one(
    store: CountedStore, fetcher: Fetcher
) -> None:
    early = await started(fetcher, ["1"])
    write(store, fetcher, ONE, "1", 100)
    late = await started(fetcher, ["1"])
    store.answer(0)
    await soon(early)
    last = await started(fetcher, ["1"])
    assert len(store.calls) == 2
    store.answer(1)
    assert await soon(late) == [ok(100)]
    assert await soon(last) == [ok(100)]
    assert await read(fetcher, ["1"]) == [ok(100)]
    assert len(store.calls) == 2


async def test_a_row_written_while_its_absence_is_fetched_is_read(
    store: CountedStore, fetcher: Fetcher
) -> None:
    early = await started(fetcher, ["9"])
    write(store, fetcher, ONE, "9", 9)
    store.resume()
    assert await soon(early) == [MISSING]
    assert await read(fetcher, ["9"]) == [ok(9)]


KEYS = ("1", "2", "3")
SOME_KEYS = st.lists(st.sampled_from(KEYS), unique=True, min_size=1)
POSITION = st.integers(0, 5)
Step = tuple[str, Any]
STEPS: st.SearchStrategy[list[Step]] = st.lists(
    st.one_of(
        st.tuples(st.just("read"), SOME_KEYS),
        st.tuples(st.just("read"), SOME_KEYS),
        st.tuples(st.just("write"), SOME_KEYS),
        st.tuples(st.just("write_elsewhere"), SOME_KEYS),
        st.tuples(st.just("answer"), POSITION),
        st.tuples(st.just("fail"), POSITION),
        st.tuples(st.just("cancel"), POSITION),
        st.tuples(st.just("wait"), st.sampled_from([4.0, 10.0])),
    ),
    min_size=8,
    max_size=40,
)


class Interleaved:
    """Reads, writes and failures in any order.

    Each write stores a larger number than the one before. A read of an available row must return at
    least the number that was acknowledged when the read began.
    """

    def __init__(self) -> None:
        self.store = CountedStore()
        self.store.paused = True
        self.clock = Clock()
        # The cache has room for two of the three keys.
        self.fetcher = Fetcher(self.store, FeatureCache(500, 10.0, clock=self.clock))
        self.acknowledged = dict.fromkeys(KEYS, -1)
        self.readers: list[asyncio.Task[None]] = []
        self.numbers: Iterator[int] = iter(range(1_000))

    async def check_read(self, keys: Sequence[str]) -> None:
        at_least = dict(self.acknowledged)
        for key, (status, number) in zip(keys, await read(self.fetcher, keys), strict=True):
            if status != "unavailable":
                message = f"read {number} for key {key} after {at_least[key]} was acknowledged"
                assert number >= at_least[key], message
                assert status == ("missing" if number < 0 else "ok")

    def read(self, keys: Sequence[str]) -> None:
        self.readers.append(asyncio.create_task(self.check_read(keys)))

    def write(self, keys: Sequence[str]) -> None:
        for key in keys:
            number = next(self.numbers)
            write(self.store, self.fetcher, ONE, key, number)
            self.acknowledged[key] = number

    def write_elsewhere(self, keys: Sequence[str]) -> None:
        """Write to the store without invalidating the rows, as another process does."""
        for key in keys:
            self.store.values[key_of(ONE, key)] = encode(ONE, next(self.numbers))

    def answer(self, position: int, fails: bool = False) -> None:
        """Answer one of the waiting calls; position 0 is the oldest."""
        waiting = [i for i, call in enumerate(self.store.calls) if not call.answered.is_set()]
        if position < len(waiting):
            self.store.answer(waiting[position], fails=fails)

    def fail(self, position: int) -> None:
        self.answer(position, fails=True)

    def cancel(self, position: int) -> None:
        waiting = [reader for reader in self.readers if not reader.done()]
        if position < len(waiting):
            waiting[position].cancel()

    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    async def run(self, steps: Sequence[Step]) -> None:
        for name, argument in steps:
            step: Callable[[Any], None] = getattr(self, name)
            step(argument)
            await settle()
        self.store.resume()
        for result in await asyncio.gather(*self.readers, return_exceptions=True):
            if isinstance(result, Exception):
                raise result
        await self.check_read(KEYS)


@settings(max_examples=120)
@given(STEPS)
def test_a_read_is_never_older_than_an_acknowledged_write(
    steps: Sequence[Step],
) -> None:
    asyncio.run(Interleaved().run(steps))
