"""Reads of rows: how many are in a batch, and when a read has too many bytes."""

from __future__ import annotations

import asyncio

import pytest

from kirana import byte_limit
from kirana.codecs import Status
from kirana.errors import TooLarge
from kirana.features import bounded_reads
from kirana.features.bounded_reads import FIRST_ROWS, BoundedReads
from kirana.features.cache.feature_cache import FeatureCache
from kirana.features.fetch import Fetcher
from kirana.schema import FeatureGroup
from kirana.stores import RowKeys, StoredRows
from tests.unit.features.counted_store import (
    NOW,
    ONE,
    TITLE,
    A,
    CountedStore,
    encode,
    group_of,
    key_of,
    read_of,
)

TEXTS = group_of("product.texts", [A, TITLE])
KEYS = [str(number) for number in range(400)]
LIMIT = 1 << 20


@pytest.fixture(autouse=True)
def limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(byte_limit, "MAX_READ_BYTES", LIMIT)


@pytest.fixture
def store() -> CountedStore:
    return CountedStore()


def fill(store: CountedStore, text_bytes: int, group: FeatureGroup = TEXTS) -> None:
    """Store a row with a text of `text_bytes` for each of `KEYS`."""
    for number, key in enumerate(KEYS):
        store.values[key_of(group, key)] = encode(group, number, title="x" * text_bytes)


async def read(reads: BoundedReads, *groups: FeatureGroup) -> list[StoredRows]:
    return [*await reads.read(groups, [RowKeys(group.name, KEYS) for group in groups])]


def sizes(store: CountedStore) -> list[int]:
    """Return how many keys each read of the store had."""
    return [len(keys) for keys in store.batches]


async def sizes_of_read(store: CountedStore, reads: BoundedReads) -> list[int]:
    """Read `TEXTS`, and return how many keys each read of the store had."""
    store.calls.clear()
    await read(reads, TEXTS)
    return sizes(store)


async def test_the_first_batch_is_small_and_later_reads_are_one_batch(store: CountedStore) -> None:
    fill(store, 100)
    reads = BoundedReads(store)
    for expected in ([FIRST_ROWS, len(KEYS) - FIRST_ROWS], [len(KEYS)]):
        store.calls.clear()
        (answer,) = await read(reads, TEXTS)
        assert sizes(store) == expected
        assert list(answer.values) == [store.values[key_of(TEXTS, key)] for key in KEYS]


async def test_rows_of_a_fixed_size_are_one_batch_at_once(store: CountedStore) -> None:
    store.set(ONE, k1=1)
    await read(BoundedReads(store), ONE)
    assert sizes(store) == [len(KEYS)]


async def test_no_batch_has_more_than_its_share_once_the_sizes_are_known(
    store: CountedStore,
) -> None:
    fill(store, 2_400)
    reads = BoundedReads(store)
    await read(reads, TEXTS)
    batches = await sizes_of_read(store, reads)
    assert len(batches) >= 4
    assert max(batches) * 2_400 <= LIMIT / 4


async def test_a_few_large_rows_make_the_batches_small(store: CountedStore) -> None:
    fill(store, 10)
    reads = BoundedReads(store)
    store.values[key_of(TEXTS, KEYS[0])] = encode(TEXTS, 0, title="x" * 20_000)
    await read(reads, TEXTS)
    assert max(await sizes_of_read(store, reads)) * 20_000 <= LIMIT / 4


async def test_rows_that_are_missing_or_unavailable_say_nothing_of_sizes(
    store: CountedStore,
) -> None:
    fill(store, 2_400)
    reads = BoundedReads(store)
    await read(reads, TEXTS)
    rows, store.values = store.values, {}
    for _ in range(50):
        await read(reads, TEXTS)
    store.unreachable = {key_of(TEXTS, key) for key in KEYS}
    await read(reads, TEXTS)
    store.values, store.unreachable = rows, set()
    assert max(await sizes_of_read(store, reads)) * 2_400 <= LIMIT / 4


async def test_several_groups_of_unknown_sizes_share_the_first_batch(store: CountedStore) -> None:
    groups = [group_of(f"product.g{number}", [A, TITLE]) for number in range(4)]
    for group in groups:
        fill(store, 100, group)
    keys = KEYS[: FIRST_ROWS // 2]
    await BoundedReads(store).read(groups, [RowKeys(group.name, keys) for group in groups])
    assert max(sizes(store)) <= FIRST_ROWS


async def test_no_batch_has_more_rows_with_strings_than_the_maximum(
    store: CountedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounded_reads, "MAX_ROWS", 100)
    fill(store, 10)
    reads = BoundedReads(store)
    for _ in range(2):
        await read(reads, TEXTS)
    assert max(sizes(store)) == 100


async def test_a_read_ends_as_soon_as_it_has_too_many_bytes(store: CountedStore) -> None:
    fill(store, 20_000)
    reads = BoundedReads(store)
    for _ in range(2):
        store.calls.clear()
        with pytest.raises(TooLarge, match=rf"^the rows have more than {LIMIT} bytes: read fewer"):
            await read(reads, TEXTS)
        assert sum(sizes(store)) * 20_000 <= 1.5 * LIMIT


async def test_a_value_that_is_too_large_by_itself_is_refused(store: CountedStore) -> None:
    store.values[key_of(TEXTS, "7")] = b"x" * (LIMIT + 1)
    with pytest.raises(TooLarge):
        await read(BoundedReads(store), TEXTS)


async def test_batches_of_several_groups_keep_order_tiers_and_unavailable_rows(
    store: CountedStore,
) -> None:
    other = group_of("product.other", [A, TITLE])
    fill(store, 100)
    fill(store, 100, other)
    store.unreachable = {key_of(TEXTS, KEYS[-1]), key_of(other, KEYS[3])}
    texts, numbers, others = await read(BoundedReads(store), TEXTS, ONE, other)
    assert len(store.calls) > 1
    for group, answer, position in ((TEXTS, texts, len(KEYS) - 1), (other, others, 3)):
        assert answer.unavailable is not None
        assert answer.unavailable.tolist() == [position]
        assert answer.reason == "a node is down"
        assert answer.values[5] == store.values[key_of(group, KEYS[5])]
    assert len(numbers.values) == len(texts.values) == len(KEYS)


class TestFetcher:
    """The limits of a whole fetch, with the rows that are cached."""

    async def test_rows_of_a_fixed_size_are_refused_without_a_read(
        self, store: CountedStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(byte_limit, "MAX_READ_BYTES", 1_000)
        with pytest.raises(TooLarge, match=r"^the rows have more than 1000 bytes"):
            await Fetcher(store, None).fetch([ONE], KEYS)
        assert store.calls == []

    async def test_a_cached_row_counts_once_per_key(self, store: CountedStore) -> None:
        fill(store, 20_000)
        fetcher = Fetcher(store, FeatureCache(16 << 20, 10.0))
        await fetcher.fetch([TEXTS], ["1"])
        (fetched,) = await fetcher.fetch([TEXTS], ["1"] * 50)
        assert read_of(fetched, TEXTS) == [("ok", 1)] * 50
        store.calls.clear()
        with pytest.raises(TooLarge):
            await fetcher.fetch([TEXTS], ["1"] * 60)
        assert store.calls == []

    async def test_a_call_that_waits_for_a_read_that_is_too_large_reads_for_itself(
        self, store: CountedStore
    ) -> None:
        fill(store, 20_000)
        fetcher = Fetcher(store, FeatureCache(16 << 20, 10.0))
        large = fetcher.fetch([TEXTS], KEYS)
        small = fetcher.fetch([TEXTS], KEYS[:2])
        refused, answer = await asyncio.gather(large, small, return_exceptions=True)
        assert isinstance(refused, TooLarge)
        assert not isinstance(answer, BaseException)
        (fetched,) = answer
        rows = fetched.decode(TEXTS, NOW)
        assert rows.status.tolist() == [Status.OK] * 2
