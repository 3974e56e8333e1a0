"""The tests that every feature store must pass. `tests/contract/backends.py` lists the stores."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from itertools import count, product

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kirana.codecs import CODECS
from kirana.codecs.packed.codec import TOMBSTONE, Packed
from kirana.codecs.packed.layout import HEADER, LAYOUT_VERSION
from kirana.codecs.rows import Tier
from kirana.errors import ConfigurationError, InvalidInput
from kirana.stores import (
    FeatureStore,
    RowBlock,
    RowKeys,
    Written,
    open_feature_store,
)
from kirana.stores.memory import MemoryFeatureStore
from tests.contract.backends import backends
from tests.store_calls import counts_stale, open_store, read_values, write_rows

SHARED = backends("memory")
"""Stores that share rows between all clients with the same URL, in any process."""

ORDERED_TIES = backends("cassandra", "tiers cassandra")
"""Stores in which the later of two writes with the same time wins."""

COUNTED = backends("cassandra", "tiers cassandra")
"""Stores that say how many rows of a write were stale."""

ATOMIC = backends("redis cluster", "cassandra", "tiers lmdb", "tiers cassandra")
"""Stores whose readers never see only some rows of a write."""

FORGETFUL = backends("cassandra", "tiers cassandra")
"""Stores that know nothing of a row that was removed."""

EXAMPLES = count()
"""A number for each example of a property test, so that each example has its own keys."""

CODEC = CODECS["packed"]


def value(time: int, text: str = "", *, deleted: bool = False) -> bytes:
    """Return a packed row that never expires, or a tombstone if `deleted`."""
    header = np.zeros(1, dtype=HEADER)
    header["layout"] = LAYOUT_VERSION
    header["flags"] = TOMBSTONE if deleted else 0
    header["event_time"] = time
    return header.tobytes() + text.encode()


async def put(store: FeatureStore, rows: dict[bytes, bytes]) -> int:
    return await write_rows(store, list(rows), list(rows.values()), CODEC)


async def test_an_empty_store_returns_no_rows(store: FeatureStore) -> None:
    assert await read_values(store, [b"a", b"b"]) == [None, None]
    assert await read_values(store, []) == []


async def test_values_are_returned_in_the_order_of_the_keys(store: FeatureStore) -> None:
    rows = {b"b": value(1, "B"), b"a": value(1, "A"), b"c": value(1, "C")}
    assert await put(store, rows) == 3
    keys = [b"c", b"none", b"a", b"c", b"b"]
    assert await read_values(store, keys) == [rows.get(key) for key in keys]


async def test_writing_no_rows_is_allowed(store: FeatureStore) -> None:
    assert await write_rows(store, [], [], CODEC) == 0


async def test_an_older_value_never_replaces_a_newer_one(store: FeatureStore) -> None:
    assert await put(store, {b"a": value(5, "new")}) == 1
    expected = 1 if counts_stale(store) else 2
    assert await put(store, {b"a": value(4, "old"), b"b": value(4, "other")}) == expected
    assert await read_values(store, [b"a", b"b"]) == [value(5, "new"), value(4, "other")]


@pytest.mark.parametrize("url", ORDERED_TIES, indirect=True)
async def test_a_value_of_the_same_time_replaces_the_stored_one(store: FeatureStore) -> None:
    await put(store, {b"a": value(5, "one")})
    assert await put(store, {b"a": value(5, "two")}) == 1
    assert await read_values(store, [b"a"]) == [value(5, "two")]


async def test_a_tombstone_wins_against_a_value_of_the_same_time(store: FeatureStore) -> None:
    await put(store, {b"a": value(5, "one")})
    assert await put(store, {b"a": value(5, deleted=True)}) == 1
    assert await put(store, {b"a": value(5, "two")}) == (0 if counts_stale(store) else 1)
    assert await read_values(store, [b"a"]) == [value(5, deleted=True)]
    assert await put(store, {b"a": value(6, "three")}) == 1


async def test_the_newest_row_stays_if_a_call_repeats_a_key(store: FeatureStore) -> None:
    keys = [b"a", b"a", b"a"]
    expected = 2 if counts_stale(store) else 3
    assert await write_rows(store, keys, [value(1), value(3), value(2)], CODEC) == expected
    assert await read_values(store, [b"a"]) == [value(3)]


rows_of_calls = st.lists(
    st.lists(
        st.tuples(st.sampled_from([b"a", b"b", b"a:1"]), st.integers(0, 4), st.booleans()),
        max_size=4,
    ),
    max_size=6,
)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows_of_calls)
async def test_the_row_with_the_greatest_write_order_stays_after_any_writes(
    store: FeatureStore, calls: list[list[tuple[bytes, int, bool]]]
) -> None:
    prefix = f"{next(EXAMPLES)}:".encode()
    model: dict[bytes, tuple[int, bool]] = {}
    for call in calls:
        expected = 0
        keys: list[bytes] = []
        values: list[bytes] = []
        for key, time, deleted in call:
            keys.append(prefix + key)
            values.append(value(time, deleted=deleted))
            if (time, deleted) >= model.get(key, (-1, False)):
                model[key] = (time, deleted)
                expected += 1
        stored = await write_rows(store, keys, values, CODEC)
        assert stored == (expected if counts_stale(store) else len(keys))
    rows = await read_values(store, [prefix + key for key in model])
    assert [CODEC.write_order(row or b"") for row in rows] == list(model.values())


TEXTS = (
    *("1;0;1;5;57218f65", "1;0;1;4;57218f65", "1;0;1;05;57218f65", "1;0;1;50;57218f65", "1;0;1;5"),
    *("1", "1;0", "1;0;1", "", ";", ";LATER;0", ";LATER;0;5", ";LATER;0;4", "x;LATER;0;5"),
    *(";LATER;0;5;57218f65", "a\\;5;LATER;2;9000", "a\\;5;LATER;9000", "a\\\\;LATER;1;9000"),
    *("a\\", "a;0;1;9\\", "a\\;0;LATER;9", "a;0;1;9;57218F65", "a;0;1;9;57218f650"),
    *("a;0;1;9;57218f6", "a;0;1;9;57218f65;", "a;0;1;9;", "a;0;;9", "a;;1;9", "a;0;1;9e3"),
    *("a;4294967296;1;9", "a;4294967295;1;9", "a;0;65536;9", "a;0;65535;9", "a;0;1;9\n"),
    *("a;0;1;18446744073709551616", "a;0;1;000000000000000000009", "a;0;1;00000000000000000009"),
    *("a;0;1;-9", "a;0;1; 9", "a\nb;0;1;9", "a\\\n;0;1;9", "a;0;1;٣"),
)


@pytest.mark.parametrize("url", ORDERED_TIES, indirect=True)
async def test_a_store_orders_texts_as_their_codec_does(store: FeatureStore) -> None:
    """Some of the texts are rows as people type them, and some are not rows."""
    codec = CODECS["text"]
    texts = [text.replace("LATER", str(2**32 - 2)) for text in TEXTS]
    values = [text.encode() for text in texts] + [b"\xff;0;1;9", b"\xff", b"\0;0;1;7"]
    pairs = [*product(values, values)]
    keys = [b"%d" % i for i in range(len(pairs))]
    assert await write_rows(store, keys, [old for old, _ in pairs], codec) == len(pairs)
    wins = [codec.write_order(new) >= codec.write_order(old) for old, new in pairs]
    assert await write_rows(store, keys, [new for _, new in pairs], codec) == sum(wins)
    expected = [new if new_wins else old for (old, new), new_wins in zip(pairs, wins, strict=True)]
    assert list(await read_values(store, keys)) == expected


async def test_many_keys_are_read_and_written_at_once(store: FeatureStore) -> None:
    rows = {f"f:product.stats:{n}".encode(): value(n, str(n)) for n in range(20_000)}
    assert await put(store, rows) == len(rows)
    keys = [b"none", *reversed(rows)]
    assert await read_values(store, keys) == [None, *reversed(rows.values())]


@pytest.mark.parametrize("size", [0, 1, 4_096, 1 << 20, 3 << 20])
async def test_values_of_up_to_3_mib_are_kept(store: FeatureStore, size: int) -> None:
    large = value(1, "x" * size)
    await put(store, {b"a": value(1), b"b": large, b"c": value(1)})
    assert await read_values(store, [b"a", b"b", b"c"]) == [value(1), large, value(1)]


async def test_key_texts_may_contain_nul_separators_and_unicode(store: FeatureStore) -> None:
    keys = [b"a", b"a\0", b"a\0b", b"x" * 400, "é🛒".encode(), b" ", b"a:b|c\\"]
    rows = {key: value(1, str(i)) for i, key in enumerate(keys)}
    await put(store, rows)
    assert await read_values(store, keys) == list(rows.values())


async def test_concurrent_writers_lose_no_rows(store: FeatureStore) -> None:
    async def writer(name: int) -> int:
        return sum([await put(store, {f"{name}:{n}".encode(): value(n)}) for n in range(20)])

    assert await asyncio.gather(*(writer(name) for name in range(10))) == [20] * 10
    keys = [f"{name}:{n}".encode() for name in range(10) for n in range(20)]
    assert None not in await read_values(store, keys)


async def test_concurrent_writers_of_one_key_leave_the_newest(store: FeatureStore) -> None:
    times = [(n * 37) % 100 for n in range(100)]
    written = await asyncio.gather(*(put(store, {b"a": value(time)}) for time in times))
    assert sum(written) >= 1
    assert await read_values(store, [b"a"]) == [value(99)]


@pytest.mark.parametrize(
    "url", backends("redis cluster", "cassandra", "tiers cassandra"), indirect=True
)
async def test_readers_never_see_only_some_rows_of_a_write(store: FeatureStore) -> None:
    keys = [str(n).encode() for n in range(50)]
    await put(store, dict.fromkeys(keys, value(0)))

    async def write() -> None:
        for time in range(1, 20):
            await put(store, dict.fromkeys(keys, value(time)))

    async def read() -> None:
        while True:
            values: Sequence[bytes | None] = await read_values(store, keys)
            assert len(set(values)) == 1
            if values[0] == value(19):
                return
            await asyncio.sleep(0)

    await asyncio.gather(write(), read())


@pytest.mark.parametrize("url", SHARED, indirect=True)
async def test_rows_are_there_after_closing_and_reopening(url: str) -> None:
    store = open_store(url)
    await put(store, {b"a": value(1)})
    await store.close()
    reopened = open_store(url)
    assert await read_values(reopened, [b"a"]) == [value(1)]
    await reopened.close()


@pytest.mark.parametrize("url", SHARED, indirect=True)
async def test_two_stores_of_one_url_see_the_same_rows(store: FeatureStore, url: str) -> None:
    other = open_store(url)
    await put(store, {b"a": value(1)})
    assert await read_values(other, [b"a"]) == [value(1)]
    await other.close()
    assert await read_values(store, [b"a"]) == [value(1)]


async def test_closing_again_is_a_no_op(store: FeatureStore, url: str) -> None:
    other = open_store(url)
    await other.close()
    await other.close()
    await put(store, {b"a": value(1)})


async def test_closing_twice_at_once_leaves_other_users_alone(
    store: FeatureStore, url: str
) -> None:
    other = open_store(url)
    await asyncio.gather(other.close(), other.close())
    assert await asyncio.wait_for(put(store, {b"a": value(1)}), timeout=10) == 1


async def test_an_error_of_a_codec_is_raised_to_the_writer(store: FeatureStore) -> None:
    class Broken(Packed):
        def write_order(self, stored: bytes) -> tuple[int, bool]:
            raise ValueError("not a row")

    await put(store, {b"a": value(1)})
    with pytest.raises(ValueError, match="not a row"):
        await write_rows(store, [b"b", b"a"], [value(2), value(2)], Broken())
    assert await read_values(store, [b"a", b"b"]) == [value(1), None]


WRONG_URLS = (
    *("", "lmdb", "lmdb://", "lmdb:///", "lmdb://folder", "foo:///a"),
    *("memory", "memory:", "memory:/", "memory:///", "memory:///a", "memory://a", "memory://?a=1"),
)


@pytest.mark.parametrize("url", WRONG_URLS)
def test_a_url_that_does_not_name_a_store_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        open_feature_store(url, setting="features")
    assert caught.value.field == "features"


async def test_rows_of_several_groups_are_read_in_one_call(store: FeatureStore) -> None:
    first, second = {b"f:product.one:a": value(1, "1a")}, {b"f:product.two:a": value(1, "2a")}
    await put(store, first)
    await put(store, second)
    requested = [
        RowKeys("product.one", ["a", "b"]),
        RowKeys("product.none", []),
        RowKeys("product.two", ["b", "a"]),
    ]
    results = await store.read(requested)
    assert [list(rows.values) for rows in results] == [
        [value(1, "1a"), None],
        [],
        [None, value(1, "2a")],
    ]
    assert [rows.unavailable for rows in results] == [None] * 3
    tiers = {int(tier) for rows in results for tier in np.atleast_1d(rows.tier)}
    assert tiers <= {Tier.DURABLE, Tier.HOT}


@pytest.mark.parametrize("url", COUNTED, indirect=True)
async def test_a_write_returns_how_many_rows_were_stored_and_stale(store: FeatureStore) -> None:
    keys, older = ["a", "b", "c"], [value(4), value(6), value(5)]
    await store.write(RowBlock.of("product.g", CODEC, keys, [value(5)] * 3))
    block = RowBlock.of("product.g", CODEC, keys, older)
    assert await store.write(block) == Written(stored=2, stale=1)
    assert await store.load(block) == Written(stored=2, stale=1)


async def test_a_store_says_what_an_acknowledged_write_is_worth(store: FeatureStore) -> None:
    durability = await store.durability()
    # The Redis servers of the tests persist nothing, and Cassandra syncs each write.
    is_redis = "redis" in store.health()["store"]
    assert durability.safe is not (is_redis or isinstance(store, MemoryFeatureStore))
    assert re.search("lost|loses|on disk|commitlog_sync: group", durability.text)


async def test_removed_rows_are_gone_and_others_stay(store: FeatureStore) -> None:
    await put(store, {b"a": value(5), b"b": value(5)})
    await put(store, {b"f:product.other:a": value(5)})
    assert await store.remove(RowKeys("product.g", ["a", "none"])) == 1
    assert await store.remove(RowKeys("product.g", [])) == 0
    assert await read_values(store, [b"a", b"b"]) == [None, value(5)]
    assert await read_values(store, [b"f:product.other:a"]) == [value(5)]
    assert await put(store, {b"a": value(6, "newer")}) == 1
    assert await read_values(store, [b"a"]) == [value(6, "newer")]


@pytest.mark.parametrize("url", FORGETFUL, indirect=True)
async def test_a_removed_row_leaves_no_tombstone(store: FeatureStore) -> None:
    await put(store, {b"a": value(5)})
    await store.remove(RowKeys("product.g", ["a"]))
    assert await put(store, {b"a": value(1, "older")}) == 1
    assert await read_values(store, [b"a"]) == [value(1, "older")]


async def walked(store: FeatureStore, entity: str, *, limit: int) -> dict[tuple[str, str], bytes]:
    rows: dict[tuple[str, str], bytes] = {}
    cursor, pages = "", 0
    while pages == 0 or cursor:
        page = await store.walk(entity, cursor, limit=limit)
        rows |= {(row.group, row.key): row.value for row in page.rows}
        cursor, pages = page.cursor, pages + 1
    return rows


@pytest.mark.parametrize("limit", [1, 7, 1_000])
async def test_a_walk_returns_all_rows_of_an_entity(store: FeatureStore, limit: int) -> None:
    rows = {(f"product.{group}", f"{time}:é|{time}"): time for group in "gh" for time in range(60)}
    for (group, key), time in rows.items():
        await store.write(RowBlock.of(group, CODEC, [key], [value(time)]))
    for group in ("prod.g", "product_x.g", "a.product"):
        await store.write(RowBlock.of(group, CODEC, ["1"], [value(1)]))
    walked_rows = await walked(store, "product", limit=limit)
    assert walked_rows == {name: value(time) for name, time in rows.items()}
    assert await walked(store, "nothing", limit=limit) == {}


@pytest.mark.parametrize(
    "cursor", ["zzz", "f:other.g:1", "x|0", "|0", "\u0661", "99999999999999999999"]
)
async def test_a_wrong_cursor_of_a_walk_is_refused(store: FeatureStore, cursor: str) -> None:
    await put(store, {b"1": value(1)})
    with pytest.raises(InvalidInput) as error:
        await store.walk("product", cursor)
    assert error.value.field == "cursor"


async def test_a_walk_with_a_limit_of_0_rows_is_refused(store: FeatureStore) -> None:
    with pytest.raises(InvalidInput) as error:
        await store.walk("product", limit=0)
    assert error.value.field == "limit"


async def test_a_walk_continues_where_another_client_stopped(store: FeatureStore, url: str) -> None:
    rows = {f"{n}".encode(): value(n) for n in range(200)}
    await put(store, rows)
    page = await store.walk("product", limit=20)
    keys = {row.key for row in page.rows}
    other = store if url == "memory://" else open_store(url)
    while page.cursor:
        page = await other.walk("product", page.cursor, limit=20)
        keys |= {row.key for row in page.rows}
        # The rows that were walked are removed. The walk continues nevertheless.
        await store.remove(RowKeys("product.g", [row.key for row in page.rows]))
    assert keys == {key.decode() for key in rows}
    if other is not store:
        await other.close()
