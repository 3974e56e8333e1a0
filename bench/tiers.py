"""Features in Cassandra, alone and behind a hot tier in Redis, compared with the bare drivers."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from redis.asyncio import Redis

from bench.feature_data import COLUMNS, MATRIX, NAMES, ROWS, catalog_text, write_rows
from bench.figures import Breakdown, Figure, Report
from bench.floors.cassandra_driver import Driver
from bench.paired import compare
from bench.servers import redis_server
from kirana.cassandra.url import CassandraUrl
from kirana.catalog.directory import DirectoryCatalog
from kirana.catalog.snapshot import Catalog
from kirana.features import FeatureQuery
from kirana.features.service import FeatureService
from kirana.ingest.push import Push
from kirana.ingest.targets import StoreTarget
from kirana.request import RequestContext
from kirana.revision import Revision
from kirana.serving.checks import catalog_checks
from kirana.stores import FeatureStore, open_feature_store
from kirana.stores.cassandra_tables import CassandraTables
from kirana.stores.hot.generations import ENTITY
from kirana.stores.hot.keys import hot_prefix
from kirana.stores.open import open_hot_tier
from kirana.stores.row_keys import prefixed_keys
from kirana.stores.tiered import TieredFeatureStore
from tests.cassandra_server import CassandraServer

LOADED = 20_000
BULK_ROUNDS = 5
HIT_RATES = (100, 99, 90, 50, 0)
READS_PER_RATE = 200
PLOT = Path(__file__).with_name("hit_rates.svg")

SELECT = 'SELECT value FROM shop.product WHERE key = ? AND "group" = ?'
INSERT = (
    'INSERT INTO shop.product (key, "group", value) VALUES (?, ?, ?) USING TIMESTAMP ? AND TTL ?'
)


@dataclass(frozen=True)
class Shop:
    """A catalog, a Cassandra with the tables for it, and a Redis."""

    source: DirectoryCatalog
    revision: Revision
    catalog: Catalog
    cassandra_port: int
    redis: str
    folder: Path

    @property
    def ids(self) -> list[str]:
        return [str(n) for n in range(ROWS)]

    @property
    def query(self) -> list[FeatureQuery]:
        return [FeatureQuery("product", self.ids, matrix=MATRIX)]

    def cassandra(self) -> FeatureStore:
        return open_feature_store(f"cassandra://127.0.0.1:{self.cassandra_port}/shop?timeout=30")

    def tiers(self) -> TieredFeatureStore:
        hot = open_hot_tier(f"redis://{self.redis}")
        return TieredFeatureStore(self.cassandra(), hot, ttl_s=3_600, bound_s=60)


async def measure() -> Report:
    """Measure both tiers. `bench/README.md` describes the keys."""
    with shop() as built:
        figures = await measure_reads(built)
        figures |= await measure_hot(built)
        figures |= await measure_bulk(built)
        by_rate = await latency_by_hit_rate(built)
    plot(by_rate)
    tables = [
        Breakdown(
            f"one read of 500 x 60 by the share of rows with a copy in Redis, {name}",
            "ms",
            {f"{rate}%": times[name] for rate, times in by_rate.items()},
        )
        for name in ("median", "p99")
    ]
    return Report(figures, tables)


@contextmanager
def shop() -> Iterator[Shop]:
    with tempfile.TemporaryDirectory(prefix="kb-") as temporary, redis_server() as address:
        folder = Path(temporary)
        for name in ("catalog", "cassandra"):
            (folder / name).mkdir()
        (folder / "catalog" / "catalog.yaml").write_text(catalog_text(1))
        source = DirectoryCatalog(folder / "catalog", catalog_checks())
        revision = source.publish().revision
        with CassandraServer(folder / "cassandra") as server:
            url = CassandraUrl.parse(f"cassandra://{server.address}/shop?timeout=30")
            CassandraTables(url).create(["product", ENTITY])
            port = url.hosts[0][1]
            yield Shop(source, revision, source.load(revision), port, address, folder)


async def measure_reads(shop: Shop) -> dict[str, Figure]:
    """Measure reads of 500 rows from Cassandra, with the same statement."""
    service = FeatureService(shop.cassandra(), shop.source)
    values = np.random.default_rng(0).random((ROWS, COLUMNS), dtype=np.float32)
    await write_rows(service, shop.revision, shop.ids, NAMES, values)
    context = RequestContext.begin(shop.revision)
    (rows,) = await service.read(shop.query, context)
    assert np.array_equal(rows.matrix, values)
    driver = Driver(shop.cassandra_port)
    parameters = [(key, "stats") for key in shop.ids]
    driver.choose_concurrency(SELECT, parameters)

    async def bare() -> object:
        return driver.run(SELECT, parameters)

    figure = await compare(lambda: service.read(shop.query, context), bare)
    driver.close()
    await service.close()
    return {"cassandra_read_vs_driver": figure}


async def measure_hot(shop: Shop) -> dict[str, Figure]:
    """Measure reads of copies in the hot tier beside reads of the same rows from Redis alone."""
    tiers = FeatureService(shop.tiers(), shop.source)
    alone = FeatureService(open_feature_store(f"redis://{shop.redis}"), shop.source)
    context = RequestContext.begin(shop.revision)
    values = np.random.default_rng(0).random((ROWS, COLUMNS), dtype=np.float32)
    await write_rows(alone, shop.revision, shop.ids, NAMES, values)
    await tiers.read(shop.query, context)
    await asyncio.sleep(1)
    figure = await compare(
        lambda: tiers.read(shop.query, context), lambda: alone.read(shop.query, context)
    )
    await tiers.close()
    await alone.close()
    return {"hot_vs_redis": figure}


async def measure_bulk(shop: Shop) -> dict[str, Figure]:
    """Measure `push` into Cassandra, and through both tiers."""
    file = shop.folder / "product.stats.parquet"
    rng = np.random.default_rng(0)
    columns: dict[str, object] = {"product_id": [f"bulk{n}" for n in range(LOADED)]}
    for name in NAMES:
        columns[name] = rng.random(LOADED, dtype=np.float32)
    pq.write_table(pa.table(columns), file)
    cassandra, tiers = shop.cassandra(), shop.tiers()

    async def push(store: FeatureStore) -> float:
        job = Push([file], shop.catalog)
        start = time.perf_counter()
        await job.write(StoreTarget(store), lambda rows: None)
        return LOADED / (time.perf_counter() - start)

    driver = Driver(shop.cassandra_port)
    time_us, ttl_s = time.time_ns() // 1_000, 7 * 86_400
    value = rng.bytes(24 + 4 * COLUMNS)
    parameters = [(f"bulk{n}", "stats", value, time_us, ttl_s) for n in range(LOADED)]
    driver.choose_concurrency(INSERT, parameters[:2_000])

    def insert() -> float:
        start = time.perf_counter()
        driver.run(INSERT, parameters)
        return LOADED / (time.perf_counter() - start)

    alone, tiered = [], []
    for _ in range(BULK_ROUNDS + 1):
        alone.append((await push(cassandra), insert()))
        tiered.append((await push(tiers), insert()))
    driver.close()
    await cassandra.close()
    await tiers.close()
    return {
        "bulk_cassandra_vs_driver": Figure.of_rates(alone[1:]),
        "bulk_tiers_vs_driver": Figure.of_rates(tiered[1:]),
    }


async def latency_by_hit_rate(shop: Shop) -> dict[int, dict[str, float]]:
    """Return the median and the p99 in milliseconds of one read, by the percentage of copies."""
    store = shop.tiers()
    service = FeatureService(store, shop.source)
    context = RequestContext.begin(shop.revision)
    client = Redis.from_url(f"redis://{shop.redis}")
    keys = prefixed_keys(hot_prefix("product.stats"), shop.ids)
    rng = np.random.default_rng(0)
    await service.read(shop.query, context)
    latencies: dict[int, dict[str, float]] = {}
    for rate in HIT_RATES:
        times = []
        for _ in range(READS_PER_RATE):
            await store.settle()
            if evicted := round(ROWS * (100 - rate) / 100):
                await client.delete(*(keys[i] for i in rng.choice(ROWS, evicted, replace=False)))
            start = time.perf_counter()
            await service.read(shop.query, context)
            times.append((time.perf_counter() - start) * 1_000)
        median, p99 = np.percentile(times, (50, 99))
        latencies[rate] = {"median": float(median), "p99": float(p99)}
    await service.close()
    await client.aclose()
    return latencies


def plot(by_rate: dict[int, dict[str, float]]) -> None:
    """Write the latencies as an SVG beside this file."""
    import matplotlib as mpl

    mpl.use("svg")
    # Ids in an SVG are random by default. With a fixed salt, the same figures give the same file.
    mpl.rcParams["svg.hashsalt"] = "kirana"
    from matplotlib import pyplot as plt

    figure, axis = plt.subplots(figsize=(6, 4))
    for name in ("median", "p99"):
        axis.plot(
            list(by_rate), [times[name] for times in by_rate.values()], marker="o", label=name
        )
    axis.set(xlabel="rows with a copy in Redis (%)", ylabel="ms", yscale="log")
    axis.invert_xaxis()
    axis.grid(visible=True, which="both", alpha=0.3)
    axis.legend()
    figure.tight_layout()
    figure.savefig(PLOT, metadata={"Date": None})
    plt.close(figure)
