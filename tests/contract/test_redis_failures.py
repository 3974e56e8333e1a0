"""Failures of Sentinels and masters, and values that are not strings."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

import numpy as np
import pytest
import redis

from kirana.codecs import Status
from kirana.errors import Unavailable
from kirana.stores import RowBlock, RowKeys, redis_bulk
from kirana.stores.redis_script import GUARDED_AT_ONCE
from kirana.stores.row_keys import row_keys
from tests.contract.cluster_nodes import (
    BOUND_S,
    CODEC,
    GROUP,
    SHORT,
    check,
    clicks,
    frozen,
    replication,
    service_over,
    write,
    write_clicks,
)
from tests.contract.redis_rows import NOW_MS, opened, row, until_available
from tests.redis_servers import RedisServers, execute, wait
from tests.store_calls import load_rows, read_values, write_rows
from tests.support import Shop


@pytest.mark.parametrize("state", ["frozen", "dead"])
async def test_a_store_opens_while_the_first_sentinel_is_down(
    own: RedisServers, state: str
) -> None:
    url = f"{own.empty('sentinel')}?{SHORT}"
    async with opened(url) as store:
        rows = await write(store, [b"a", b"b"], 0)
        first = own.sentinels[0]
        if state == "dead":
            own.kill(first)
            await check_anew(url, rows)
            await check(store, rows)
        else:
            with frozen(own, first):
                await check_anew(url, rows)
                await check(store, rows)


async def check_anew(url: str, rows: dict[bytes, bytes]) -> None:
    """Check the rows and write others, through a new store."""
    async with opened(url) as store, asyncio.timeout(BOUND_S):
        await check(store, rows)
        await write(store, [b"other"], 0)


async def test_a_frozen_master_is_replaced_and_not_used_when_it_is_back(
    own: RedisServers,
) -> None:
    async with opened(f"{own.empty('sentinel')}?{SHORT}") as store:
        rows = await write(store, [b"a", b"b"], 0)
        await check(store, rows)
        old = own.master()
        offset = replication(old)["master_repl_offset"]
        wait(lambda: replication(old)["slave0"]["offset"] >= offset, "the rows are replicated")
        with frozen(own, old):
            async with asyncio.timeout(BOUND_S):
                with pytest.raises(Unavailable):
                    await read_values(store, [b"a"])
            await until_available(lambda: read_values(store, [b"a"]), "a new master is read")
            assert own.master() != old
            await check(store, rows)
            await until_available(lambda: write(store, [b"a", b"b"], 1), "a new master is written")
            rows = await write(store, [b"a", b"b"], 2)
            await check(store, rows)
        # The old master still acts as a master until a Sentinel demotes it.
        await check(store, rows)
        await check(store, await write(store, [b"a", b"b"], 3))


@pytest.mark.parametrize("guarded", [True, False])
async def test_a_server_that_freezes_during_a_load_is_unavailable(
    own: RedisServers, guarded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_bulk, "REPLY_TIMEOUT_S", 0.5)
    port = own.start()
    block = large_block(200_000)
    async with opened(f"redis://127.0.0.1:{port}") as store:
        loading = asyncio.create_task(load_rows(store, block, guarded=guarded))
        await asyncio.to_thread(
            wait, lambda: bool(execute(port, "DBSIZE")), "the first rows are stored"
        )
        with frozen(own, port):
            async with asyncio.timeout(BOUND_S):
                with pytest.raises(Unavailable, match="does not answer"):
                    await loading
        await until_available(
            lambda: load_rows(store, block, guarded=guarded), "the server takes rows again"
        )
        assert execute(port, "DBSIZE") == len(block)


def large_block(count: int) -> RowBlock:
    keys = b"".join(b"%08d" % i for i in range(count))
    value = row(CODEC, "a")
    ends = np.arange(1, count + 1)
    return RowBlock(
        "product.g",
        CODEC,
        np.frombuffer(keys, np.uint8),
        ends * (len(keys) // count),
        np.frombuffer(value * count, np.uint8),
        ends * len(value),
        np.full(count, CODEC.expiry_s(value), np.uint32),
        np.full(count, NOW_MS, np.uint64),
    )


async def test_values_that_are_not_rows_affect_only_their_own_rows(
    own: RedisServers, shop: Shop
) -> None:
    port = own.start()
    ids = ["1", "2", "3", "4"]
    async with service_over(f"redis://127.0.0.1:{port}", shop) as service:
        await write_clicks(service, shop, ids)
        keys = row_keys(RowKeys(GROUP, ids))
        execute(port, "DEL", keys[1])
        execute(port, "RPUSH", keys[1], "x")
        execute(port, "SET", keys[2], "no row")
        assert await clicks(service, shop, ids) == [
            (Status.OK, 0),
            (Status.MISSING, 0),
            (Status.CORRUPT, 0),
            (Status.OK, 3),
        ]


@pytest.mark.parametrize("kind", ["redis 6.2", "redis 7", "redis cluster"])
async def test_a_write_replaces_a_value_that_is_not_a_row(servers: RedisServers, kind: str) -> None:
    """The other rows of the call are written too."""
    url = servers.empty(kind)
    keys = row_keys(RowKeys(GROUP, [str(n) for n in range(GUARDED_AT_ONCE + 10)]))
    foreign = {keys[3]: "RPUSH", keys[GUARDED_AT_ONCE + 3]: "SADD", keys[5]: "APPEND"}
    with client_of(url) as client:
        for key, command in foreign.items():
            client.execute_command(command, key, "x")
    async with opened(url) as store:
        await check(store, await write(store, keys, 0))
        assert (
            await write_rows(store, keys, [row(CODEC, "older", NOW_MS - 1)] * len(keys), CODEC) == 0
        )


def client_of(url: str) -> redis.Redis | redis.RedisCluster:
    if url.startswith("redis+cluster"):
        first = urlsplit(url.partition(",")[0])
        return redis.RedisCluster(host="127.0.0.1", port=first.port or 0)
    return redis.Redis.from_url(url)
