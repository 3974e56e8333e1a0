"""Reads from a real Redis through the cache: popular rows, writes by other replicas, failures."""

from __future__ import annotations

import signal
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import redis

from kirana.breaker import MAX_FAILURES
from kirana.codecs import Column, Status
from kirana.codecs.rows import Tier
from kirana.errors import Unavailable
from kirana.features import EntityRows, FeatureQuery
from kirana.features.cache.feature_cache import FeatureCache
from kirana.features.service import FeatureService
from kirana.features.source import FeatureWrite
from kirana.stores import open_feature_store
from tests.clock import Clock
from tests.redis_servers import RedisServers
from tests.support import Shop, open_shop, publish, write_shop
from tests.waiting import wait_until

FRESH_S = 0.2
PRODUCTS = 20_000


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    folder = write_shop(tmp_path / "shop")
    publish(folder)
    opened = open_shop(folder)
    yield opened
    await opened.close()


@pytest.fixture
def clock() -> Clock:
    """Return the clock of the caches in a test."""
    return Clock()


def replica(
    shop: Shop,
    url: str,
    clock: Clock,
    *,
    fresh_s: float = FRESH_S,
    max_bytes: int = 1 << 20,
    fails: bool = False,
) -> FeatureService:
    """Return a service with its own connection and cache, like one in another process."""
    return FeatureService(
        open_feature_store(f"{url}?socket_timeout=0.1"),
        shop.source,
        cache=FeatureCache(max_bytes, fresh_s, clock=clock),
        fail_when_unavailable=fails,
    )


async def write(
    service: FeatureService, shop: Shop, keys: Sequence[str], clicks: int, after_ms: int = 0
) -> None:
    columns = {
        "clicks": Column(np.full(len(keys), clicks, dtype=np.int32)),
        "ctr": Column(np.full(len(keys), 0.25, dtype=np.float32)),
    }
    times = np.full(len(keys), int(time.time() * 1000) + after_ms, dtype=np.uint64)
    await service.write(FeatureWrite("product.stats", keys, columns, times), shop.request())


async def read(service: FeatureService, shop: Shop, *keys: str) -> EntityRows:
    query = FeatureQuery("product", keys, columns=("stats.clicks",), provenance=True)
    (rows,) = await service.read([query], shop.request())
    return rows


def clicks(rows: EntityRows) -> list[int]:
    return list(rows.columns["stats.clicks"].values.tolist())


def looked_up(url: str) -> int:
    """Return how many keys Redis has looked up since its start."""
    with redis.Redis.from_url(url) as client:
        stats = client.info("stats")
    return int(stats["keyspace_hits"]) + int(stats["keyspace_misses"])


async def test_reads_of_popular_rows_do_not_reach_redis(
    servers: RedisServers, shop: Shop, clock: Clock
) -> None:
    """Draw products from a Zipf distribution. The cache is far too small for all products."""
    url = servers.empty("redis 7")
    capacity = (PRODUCTS // 10) * 300
    service = replica(shop, url, clock, fresh_s=3_600, max_bytes=capacity)
    keys = [str(n) for n in range(PRODUCTS)]
    for start in range(0, PRODUCTS, 1_000):
        await write(service, shop, keys[start : start + 1_000], 7)
    rng = np.random.default_rng(0)
    draws = (rng.zipf(1.2, size=400_000) - 1) % PRODUCTS
    batches = [
        np.unique(draws[start : start + 200]).astype(str).tolist()
        for start in range(0, 400_000, 200)
    ]
    warm, measured = batches[:1_000], batches[1_000:]
    for batch in warm:
        await read(service, shop, *batch)
    before = looked_up(url)
    for batch in measured:
        assert set(clicks(await read(service, shop, *batch))) == {7}
    lookups, reads = looked_up(url) - before, sum(map(len, measured))
    assert lookups < 0.45 * reads
    # The 50 most popular rows are in the cache by now.
    before = looked_up(url)
    for _ in range(50):
        rows = await read(service, shop, *[str(n) for n in range(50)])
        assert set(rows.tier["stats"].tolist()) == {Tier.CACHE}
    assert looked_up(url) == before
    cache = (await service.health(shop.revision)).details["cache"]
    assert cache["bytes"] <= 1.2 * capacity
    assert cache["refused"] > 0
    await service.close()


async def test_keys_that_are_read_once_evict_hardly_any_popular_rows(
    servers: RedisServers, shop: Shop, clock: Clock
) -> None:
    url = servers.empty("redis 7")
    service = replica(shop, url, clock, fresh_s=3_600, max_bytes=300 * 300)
    hot = [str(n) for n in range(100)]
    await write(service, shop, hot, 1)
    for _ in range(20):
        await read(service, shop, *hot)
    for start in range(0, 20_000, 500):
        flood = [f"once{n}" for n in range(start, start + 500)]
        await write(service, shop, flood, 2)
        await read(service, shop, *flood)
        await read(service, shop, *hot)
    before = looked_up(url)
    rows = await read(service, shop, *hot)
    assert clicks(rows) == [1] * 100
    assert looked_up(url) - before <= 5
    await service.close()


async def test_a_write_is_seen_by_its_replica_at_once_and_by_others_after_the_freshness_bound(
    servers: RedisServers, shop: Shop, clock: Clock
) -> None:
    url = servers.empty("redis 7")
    writer, other = replica(shop, url, clock), replica(shop, url, clock)
    await write(writer, shop, ["1"], 1)
    assert clicks(await read(other, shop, "1", "2")) == [1, 0]
    await write(writer, shop, ["1", "2"], 2, after_ms=1)
    assert clicks(await read(writer, shop, "1", "2")) == [2, 2]
    # The cache keeps a row, and the absence of a row, for the same time.
    assert clicks(await read(other, shop, "1", "2")) == [1, 0]
    clock.now += FRESH_S
    assert clicks(await read(other, shop, "1", "2")) == [2, 2]
    times = np.full(1, int(time.time() * 1000) + 10, dtype=np.uint64)
    await writer.delete("product.stats", ["1"], times, False, shop.request())
    assert (await read(writer, shop, "1")).status["stats"].tolist() == [Status.MISSING]
    clock.now += FRESH_S
    assert (await read(other, shop, "1")).status["stats"].tolist() == [Status.MISSING]
    for service in (writer, other):
        await service.close()


async def test_cached_rows_are_read_while_redis_is_frozen_and_others_when_it_is_back(
    servers: RedisServers, shop: Shop, clock: Clock
) -> None:
    port = servers.start()
    url = f"redis://127.0.0.1:{port}"
    service = replica(shop, url, clock, fresh_s=3_600)
    await write(service, shop, ["1", "2"], 5)
    await read(service, shop, "1")
    servers.process(port).send_signal(signal.SIGSTOP)
    for _ in range(MAX_FAILURES + 3):
        rows = await read(service, shop, "1", "2", "none")
        assert rows.status["stats"].tolist() == [Status.OK, Status.UNAVAILABLE, Status.UNAVAILABLE]
        assert clicks(rows) == [5, 0, 0]
        assert rows.tier["stats"].tolist() == [Tier.CACHE, Tier.NONE, Tier.NONE]
    breaker = (await service.health(shop.revision)).details["breaker"]
    assert breaker["state"] == "open"
    # The breaker refused the later reads.
    assert breaker["refused"] >= 3
    servers.process(port).send_signal(signal.SIGCONT)
    await until_status(service, shop, "2", Status.OK)
    breaker = (await service.health(shop.revision)).details["breaker"]
    assert (breaker["state"], breaker["opened"]) == ("closed", 1)
    await service.close()


async def test_a_row_is_missing_if_redis_comes_back_empty(
    servers: RedisServers, shop: Shop, clock: Clock
) -> None:
    port = servers.start()
    service = replica(shop, f"redis://127.0.0.1:{port}", clock)
    await write(service, shop, ["1"], 5)
    assert clicks(await read(service, shop, "1")) == [5]
    servers.kill(port)
    clock.now += FRESH_S
    assert (await read(service, shop, "1")).status["stats"].tolist() == [Status.UNAVAILABLE]
    with pytest.raises(Unavailable):
        await write(service, shop, ["1"], 6)
    servers.start(port=port)
    await until_status(service, shop, "1", Status.MISSING)
    await write(service, shop, ["1"], 7)
    assert clicks(await read(service, shop, "1")) == [7]
    await service.close()


async def test_an_uncached_row_is_an_error_if_fail_when_unavailable_is_set(
    servers: RedisServers, shop: Shop, clock: Clock
) -> None:
    port = servers.start()
    service = replica(shop, f"redis://127.0.0.1:{port}", clock, fresh_s=3_600, fails=True)
    await write(service, shop, ["1"], 5)
    await read(service, shop, "1")
    servers.kill(port)
    with pytest.raises(Unavailable, match="does not answer"):
        await read(service, shop, "1", "2")
    assert clicks(await read(service, shop, "1")) == [5]
    await service.close()


async def until_status(service: FeatureService, shop: Shop, key: str, wanted: Status) -> None:
    async def reached() -> bool:
        rows = await read(service, shop, key)
        return bool(rows.status["stats"].tolist() == [wanted])

    await wait_until(reached, f"{key} is {wanted.name}")
