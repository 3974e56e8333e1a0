"""Several who want the same rows at once, and writes while rows are on their way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kirana.features.cache.feature_cache import FeatureCache
from kirana.features.fetch import Fetcher
from tests.unit.features.counted_store import (
    MISSING,
    ONE,
    TWO,
    Clock,
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

pytestmark = pytest.mark.usefixtures("inmost_loops")


@pytest.fixture
def store() -> CountedStore:
    """Paused: each call waits until it is answered."""
    made = CountedStore()
    made.set(ONE, k1=1, k2=2, k3=3)
    made.set(TWO, k1=11)
    made.paused = True
    return made


async def started(fetcher: Fetcher, keys: Sequence[str]) -> asyncio.Task[list[Read]]:
    """Begin a read, and let it come as far as it can."""
    reader = asyncio.create_task(read(fetcher, keys))
    await settle()
    return reader


@pytest.fixture
def fetcher(store: CountedStore) -> Fetcher:
    return Fetcher(store, FeatureCache(1 << 20, 10.0, clock=Clock()))


async def test_a_key_that_several_miss_at_once_is_fetched_once(
    store: CountedStore, fetcher: Fetcher
) -> None:
    readers = [asyncio.create_task(read(fetcher, ["1", "9"])) for _ in range(5)]
    await settle()
    assert store.batches == [[key_of(ONE, "1"), key_of(ONE, "9")]]
    store.answer(0)
    assert [await soon(each) for each in readers] == [[ok(1), MISSING]] * 5
    assert await read(fetcher, ["1"]) == [ok(1)]
    assert len(store.calls) == 1


async def test_where_some_keys_are_on_their_way_only_the_others_are_fetched(
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
    assert [each.done() for each in (first, second, third)] == [False] * 3
    store.answer(0)
    assert await soon(first) == [ok(1), ok(2)]
    assert await soon(second) == [ok(3), ok(2), MISSING]
    assert await soon(third) == [MISSING, ok(1), ok(3)]


async def test_one_key_in_two_groups_is_two_rows(store: CountedStore, fetcher: Fetcher) -> None:
    first = asyncio.create_task(fetcher.fetch([ONE], ["1"]))
    await settle()
    second = asyncio.create_task(fetcher.fetch([TWO, ONE], ["1"]))
    await settle()
    assert store.batches == [[key_of(ONE, "1")], [key_of(TWO, "1")]]
    store.resume()
    assert read_of((await soon(first))[0], ONE) == [ok(1)]
    two, one = await soon(second)
    assert (read_of(two, TWO), read_of(one, ONE)) == ([ok(11)], [ok(1)])


async def test_a_first_caller_who_is_cancelled_takes_nothing_from_the_second(
    store: CountedStore, fetcher: Fetcher
) -> None:
    first = await started(fetcher, ["1", "2"])
    second = await started(fetcher, ["2", "1"])
    first.cancel()
    await settle()
    assert first.cancelled()
    # the second reads for itself, once
    third = await started(fetcher, ["1"])
    assert len(store.calls) == 2
    store.answer(1)
    assert await soon(second) == [ok(2), ok(1)]
    assert await soon(third) == [ok(1)]
    assert await read(fetcher, ["1"]) == [ok(1)]
    assert len(store.calls) == 2


async def test_a_second_caller_who_is_cancelled_takes_nothing_from_the_first(
    store: CountedStore, fetcher: Fetcher
) -> None:
    first = await started(fetcher, ["1"])
    second = await started(fetcher, ["1", "2"])
    second.cancel()
    await settle()
    store.resume()
    assert await soon(first) == [ok(1)]
    assert await read(fetcher, ["2"]) == [ok(2)]


async def test_when_all_callers_are_cancelled_the_next_one_is_answered(
    store: CountedStore, fetcher: Fetcher
) -> None:
    readers = [asyncio.create_task(read(fetcher, ["1"])) for _ in range(3)]
    await settle()
    for each in readers:
        each.cancel()
    await settle()
    late = await started(fetcher, ["1"])
    store.resume()
    assert await soon(late) == [ok(1)]


# writes while rows are on their way


async def test_an_old_value_that_was_on_its_way_does_not_enter_the_cache(
    store: CountedStore, fetcher: Fetcher
) -> None:
    early = await started(fetcher, ["1", "2"])
    write(store, fetcher, ONE, "1", 100)
    store.resume()
    assert (await soon(early))[1] == ok(2)
    assert await read(fetcher, ["2", "1"]) == [ok(2), ok(100)]
    # of the other key it was kept
    assert store.asked.count(key_of(ONE, "2")) == 1


async def test_who_comes_after_a_write_does_not_wait_for_the_old_value(
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
async def test_a_batch_takes_no_old_value_from_the_fetch_of_its_other_keys(
    store: CountedStore, fetcher: Fetcher, order: list[int]
) -> None:
    """Key 1 was written while both were on their way; key 2 is still worth waiting for."""
    for number in range(100, 120):
        store.calls.clear()
        early = asyncio.create_task(read(fetcher, ["1", "2"]))
        await settle()
        write(store, fetcher, ONE, "1", number)
        late = asyncio.create_task(read(fetcher, ["1", "2"]))
        await settle()
        assert store.batches == [[key_of(ONE, "1"), key_of(ONE, "2")], [key_of(ONE, "1")]]
        for at in order:
            store.answer(at)
            await settle()
        await soon(early)
        assert await soon(late) == [ok(number), ok(2)]
        fetcher.written(ONE.name, ["1", "2"])


async def test_an_old_fetch_that_ends_does_not_end_the_new_one(
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


async def test_a_row_that_came_while_its_absence_was_on_its_way_is_read(
    store: CountedStore, fetcher: Fetcher
) -> None:
    early = await started(fetcher, ["9"])
    write(store, fetcher, ONE, "9", 9)
    store.resume()
    assert await soon(early) == [MISSING]
    assert await read(fetcher, ["9"]) == [ok(9)]


KEYS = ("1", "2", "3")
SOME = st.lists(st.sampled_from(KEYS), unique=True, min_size=1)
WHICH = st.integers(0, 5)
Step = tuple[str, Any]
STEPS: st.SearchStrategy[list[Step]] = st.lists(
    st.one_of(
        st.tuples(st.just("read"), SOME),
        st.tuples(st.just("read"), SOME),
        st.tuples(st.just("write"), SOME),
        st.tuples(st.just("arrive"), SOME),
        st.tuples(st.just("answer"), WHICH),
        st.tuples(st.just("fail"), WHICH),
        st.tuples(st.just("cancel"), WHICH),
        st.tuples(st.just("wait"), st.sampled_from([4.0, 10.0])),
    ),
    min_size=8,
    max_size=40,
)


class Interleaved:
    """Numbers only grow: a reader must see what was acknowledged before it came, or newer."""

    def __init__(self) -> None:
        self.store = CountedStore()
        self.store.paused = True
        self.clock = Clock()
        # two of the three keys have room
        self.fetcher = Fetcher(self.store, FeatureCache(500, 10.0, clock=self.clock))
        self.acknowledged = dict.fromkeys(KEYS, -1)
        self.readers: list[asyncio.Task[None]] = []
        self.numbers: Iterator[int] = iter(range(1_000))

    async def check_read(self, keys: Sequence[str]) -> None:
        at_least = dict(self.acknowledged)
        for key, (status, number) in zip(keys, await read(self.fetcher, keys), strict=True):
            if status != "unavailable":
                assert number >= at_least[key], f"{key} was {at_least[key]} before it was {number}"
                assert status == ("missing" if number < 0 else "ok")

    def read(self, keys: Sequence[str]) -> None:
        self.readers.append(asyncio.create_task(self.check_read(keys)))

    def write(self, keys: Sequence[str]) -> None:
        for key in keys:
            number = next(self.numbers)
            write(self.store, self.fetcher, ONE, key, number)
            self.acknowledged[key] = number

    def arrive(self, keys: Sequence[str]) -> None:
        """A write that nobody has acknowledged, or that of another process."""
        for key in keys:
            self.store.values[key_of(ONE, key)] = encode(ONE, next(self.numbers))

    def answer(self, at: int, fails: bool = False) -> None:
        """The oldest calls that wait are the first."""
        waiting = [n for n, call in enumerate(self.store.calls) if not call.answered.is_set()]
        if at < len(waiting):
            self.store.answer(waiting[at], fails=fails)

    def fail(self, at: int) -> None:
        self.answer(at, fails=True)

    def cancel(self, at: int) -> None:
        waiting = [each for each in self.readers if not each.done()]
        if at < len(waiting):
            waiting[at].cancel()

    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    async def run(self, steps: Sequence[Step]) -> None:
        for name, argument in steps:
            step: Callable[[Any], None] = getattr(self, name)
            step(argument)
            await settle()
        self.store.resume()
        for each in await asyncio.gather(*self.readers, return_exceptions=True):
            if isinstance(each, Exception):
                raise each
        await self.check_read(KEYS)


@settings(max_examples=120)
@given(STEPS)
def test_no_interleaving_gives_what_is_older_than_an_acknowledged_write(
    steps: Sequence[Step],
) -> None:
    asyncio.run(Interleaved().run(steps))
