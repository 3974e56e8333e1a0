"""The contract of hot tiers, on real Redis servers: copies, leases and marks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from redis import Redis

from kirana.errors import Unavailable
from kirana.stores.hot.base import HotTier, new_token
from kirana.stores.open import open_hot_tier
from kirana.stores.rows import RowKeys
from tests.contract.conftest import PATIENT
from tests.redis_servers import RedisServers

KINDS = ("redis 6.2", "redis 7", "redis tls", "redis cluster", "sentinel")
GENERATION, OTHER = b"g0000001", b"g0000002"
ROWS = RowKeys("product.g", ["a", "b", "ünïcode {x}"])
VALUES: list[bytes | None] = [b"one", None, b"\x00three"]
LIFE_MS = 60_000

pytestmark = pytest.mark.redis


@pytest.fixture(params=KINDS)
async def hot(request: pytest.FixtureRequest, servers: RedisServers) -> AsyncIterator[HotTier]:
    url = servers.empty(request.param)
    tier = open_hot_tier(f"{url}{'&' if '?' in url else '?'}{PATIENT}")
    yield tier
    await tier.close()


async def fill(
    hot: HotTier, token: bytes, generation: bytes = GENERATION, ttl_ms: int = LIFE_MS
) -> int:
    return await hot.fill([ROWS], [VALUES], [[ttl_ms] * len(VALUES)], token, generation)


async def lease_and_fill(hot: HotTier, generation: bytes = GENERATION) -> int:
    token = new_token()
    await hot.lease([ROWS], token, generation)
    return await fill(hot, token, generation)


async def copies(hot: HotTier, generation: bytes = GENERATION) -> list[bytes | None] | None:
    """Return the copies of `ROWS`, or None if there are none."""
    (rows,) = await hot.read([ROWS], generation)
    assert not rows.unreachable
    if rows.missing == [0, 1, 2]:
        assert list(rows.values) == [None] * 3
        return None
    assert rows.missing == []
    return list(rows.values)


async def test_copies_are_stored_with_a_lease_and_read_in_their_generation(hot: HotTier) -> None:
    assert await copies(hot) is None
    assert await lease_and_fill(hot) == 3
    assert await copies(hot) == VALUES
    assert await copies(hot, OTHER) is None


async def test_several_groups_are_read_in_one_call(hot: HotTier) -> None:
    await lease_and_fill(hot)
    other = RowKeys("product.h", ["a"])
    first, empty, second, third = await hot.read(
        [other, RowKeys("product.g", []), ROWS, RowKeys("product.g", ["c", "b"])], GENERATION
    )
    assert (list(first.values), first.missing) == ([None], [0])
    assert (list(empty.values), empty.missing) == ([], [])
    assert (list(second.values), second.missing) == (VALUES, [])
    assert (list(third.values), third.missing) == ([None, None], [0])


async def test_without_its_lease_a_copy_is_not_stored(hot: HotTier) -> None:
    assert await fill(hot, new_token()) == 0
    await hot.lease([ROWS], first := new_token(), GENERATION)
    await hot.lease([ROWS], second := new_token(), GENERATION)
    assert await fill(hot, second) == 0
    assert await fill(hot, first) == 3
    assert await fill(hot, first) == 0


async def test_a_copy_of_an_older_generation_is_replaced(hot: HotTier) -> None:
    await lease_and_fill(hot)
    assert await lease_and_fill(hot) == 0
    assert await lease_and_fill(hot, OTHER) == 3
    assert await copies(hot) is None
    assert await copies(hot, OTHER) == VALUES


async def test_a_mark_removes_copies_and_refuses_leases(hot: HotTier) -> None:
    await lease_and_fill(hot)
    await hot.mark(ROWS, writer := new_token(), LIFE_MS)
    assert await copies(hot) is None
    assert await lease_and_fill(hot) == 0
    await hot.unmark(ROWS, writer)
    assert await lease_and_fill(hot) == 3


async def test_a_mark_ends_a_lease(hot: HotTier) -> None:
    await hot.lease([ROWS], reader := new_token(), GENERATION)
    await hot.mark(ROWS, writer := new_token(), LIFE_MS)
    assert await fill(hot, reader) == 0
    await hot.unmark(ROWS, writer)
    assert await fill(hot, reader) == 0


async def test_the_marks_of_several_writers_are_removed_one_by_one(hot: HotTier) -> None:
    first, second, third = new_token(), new_token(), new_token()
    for writer in (first, second, third, second):
        await hot.mark(ROWS, writer, LIFE_MS)
    for writer in (second, first):
        await hot.unmark(ROWS, writer)
        assert await lease_and_fill(hot) == 0
    await hot.unmark(ROWS, third)
    assert await lease_and_fill(hot) == 3


async def test_a_writer_whose_mark_has_expired_still_removes_copies_and_leases(
    hot: HotTier,
) -> None:
    await hot.mark(ROWS, writer := new_token(), 1)
    await asyncio.sleep(0.05)
    assert await lease_and_fill(hot) == 3
    await hot.unmark(ROWS, writer)
    assert await copies(hot) is None
    await hot.lease([ROWS], reader := new_token(), GENERATION)
    await hot.unmark(ROWS, writer)
    assert await fill(hot, reader) == 0


async def test_copies_expire(hot: HotTier) -> None:
    await hot.lease([ROWS], token := new_token(), GENERATION)
    await fill(hot, token, ttl_ms=1)
    await asyncio.sleep(0.05)
    assert await copies(hot) is None


async def test_more_keys_than_a_script_takes_at_once_are_all_handled(hot: HotTier) -> None:
    rows = RowKeys("product.g", [str(n) for n in range(1_001)])
    await hot.lease([rows], token := new_token(), GENERATION)
    values: list[bytes | None] = [key.encode() for key in rows.keys]
    assert await hot.fill([rows], [values], [[LIFE_MS] * 1_001], token, GENERATION) == 1_001
    (stored,) = await hot.read([rows], GENERATION)
    assert list(stored.values) == values


async def test_a_server_says_who_it_is(hot: HotTier) -> None:
    before = await hot.servers()
    await lease_and_fill(hot)
    assert await hot.servers() == before
    assert all(len(identity) > 40 for identity in before)


async def test_the_mark_of_a_dead_writer_ends_although_others_mark_the_key(hot: HotTier) -> None:
    await hot.mark(ROWS, new_token(), 100)
    for _ in range(4):
        await hot.mark(ROWS, writer := new_token(), LIFE_MS)
        await asyncio.sleep(0.05)
        await hot.unmark(ROWS, writer)
    assert await lease_and_fill(hot) == 3


async def test_large_copies_are_stored_in_several_batches(hot: HotTier) -> None:
    values: list[bytes | None] = [b"x" * (700 << 10)] * 3
    await hot.lease([ROWS], token := new_token(), GENERATION)
    assert await hot.fill([ROWS], [values], [[LIFE_MS] * 3], token, GENERATION) == 3
    assert await copies(hot) == values


async def test_another_value_at_a_key_is_no_copy(servers: RedisServers) -> None:
    url = servers.empty("redis 7")
    with Redis.from_url(url) as client:
        client.rpush("hot:product.g:a", "x")
        client.set("hot:product.g:b", "y")
    hot = open_hot_tier(url)
    assert await copies(hot) is None
    assert await lease_and_fill(hot) == 3
    await hot.close()


async def test_a_server_that_is_down_makes_keys_unreachable(own: RedisServers) -> None:
    port = own.start()
    hot = open_hot_tier(f"redis://127.0.0.1:{port}")
    await lease_and_fill(hot)
    own.kill(port)
    (rows,) = await hot.read([ROWS], GENERATION)
    assert (list(rows.values), rows.missing, rows.unreachable) == ([None] * 3, [], [0, 1, 2])
    for call in (
        hot.lease([ROWS], new_token(), GENERATION),
        hot.mark(ROWS, new_token(), LIFE_MS),
        hot.unmark(ROWS, new_token()),
        hot.servers(),
    ):
        with pytest.raises(Unavailable):
            await call
    await hot.close()


async def test_a_restarted_server_has_a_new_identity(own: RedisServers) -> None:
    port = own.start()
    hot = open_hot_tier(f"redis://127.0.0.1:{port}")
    before = await hot.servers()
    own.kill(port)
    own.start(port=port)
    assert set(await hot.servers()).isdisjoint(before)
    await hot.close()


async def test_if_one_node_of_a_cluster_is_down_only_its_keys_are_unreachable(
    own: RedisServers,
) -> None:
    ports = own.cluster
    hot = open_hot_tier(f"redis+cluster://127.0.0.1:{ports[0]}?socket_timeout=1")
    rows = RowKeys("product.g", [str(n) for n in range(100)])
    values: list[list[bytes | None]] = [[b"x"] * 100]
    await hot.lease([rows], token := new_token(), GENERATION)
    await hot.fill([rows], values, [[LIFE_MS] * 100], token, GENERATION)
    own.kill(ports[-1])
    (found,) = await hot.read([rows], GENERATION)
    assert 0 < len(found.unreachable) < 100
    assert found.missing == []
    assert [i for i, value in enumerate(found.values) if value is None] == found.unreachable
    assert len(await hot.servers()) == len(ports) - 1
    await hot.close()
