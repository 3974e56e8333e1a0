"""Reads of 500 keys x 60 float32 features, compared with the raw databases and with Feast."""

from __future__ import annotations

import asyncio
import itertools
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.feast.environment import feast_python
from bench.feature_bulk import measure_bulk
from bench.feature_data import (
    COLUMNS,
    MATRIX,
    NAMES,
    PRODUCTS,
    ROWS,
    THIRDS,
    catalog_text,
    copy_of,
    three_groups_text,
    write_rows,
)
from bench.feature_growth import breakdown_of_a_read, measure_growth
from bench.figures import Figure, Report
from bench.floors.lmdb_loop import LmdbLoop
from bench.floors.raw_redis import RawMget, SynchronousMget
from bench.infer import inferflow_text, write_mlp
from bench.load import Generator
from bench.paired import compare
from bench.processes import child, line_of
from bench.servers import redis_server, used_memory
from bench.serving import REPLICAS, application, endpoints, ray_cluster
from kirana.catalog.directory import DirectoryCatalog
from kirana.cli.locations import local_settings
from kirana.client.wire import features_get
from kirana.features import FeatureQuery
from kirana.features.cache.feature_cache import FeatureCache
from kirana.features.service import FeatureService
from kirana.models.files import ModelFiles
from kirana.request import RequestContext
from kirana.revision import Revision
from kirana.schema import Array
from kirana.serving.checks import catalog_checks
from kirana.stores import open_feature_store
from kirana.stores.row_keys import row_keys
from kirana.stores.rows import RowKeys

FEAST_ROUNDS = 5
FEAST_SECONDS = 2.0
HTTP_ROUNDS = 5
HTTP_SECONDS = 3
PROTOBUF = "application/x-protobuf"


async def measure() -> Report:
    """Measure feature reads and writes. `bench/README.md` describes the keys."""
    with tempfile.TemporaryDirectory(prefix="kb-") as temporary:
        folder = Path(temporary)
        make_folders(folder)
        figures = await measure_lmdb(folder / "lmdb")
        with redis_server() as address:
            bulk, entity_bytes = await measure_bulk(address, catalog_text(1))
            fixture = await redis_fixture(folder / "redis", address)
            figures |= await measure_redis(fixture)
            figures |= bulk
            figures |= await measure_feast(fixture, folder / "feast", entity_bytes)
            figures |= await measure_http(fixture)
            growth = await measure_growth(address)
            steps = await breakdown_of_a_read(
                fixture.service, fixture.query(), fixture.revision, address
            )
            await fixture.service.close()
    return Report(figures, [steps, *growth])


def make_folders(folder: Path) -> None:
    for name in ("lmdb", "redis", "redis/models", "feast"):
        (folder / name).mkdir()


async def measure_lmdb(folder: Path) -> dict[str, Figure]:
    """Measure reads from LMDB.

    `lmdb_vs_get_loop` is the whole read path / a loop of `txn.get`, which decodes nothing.
    `mixed_versions_vs_uniform` is rows of three schema versions mixed / rows of one version.
    """
    source = DirectoryCatalog(folder, catalog_checks())
    service = FeatureService(open_feature_store(f"lmdb://{folder}/store"), source)
    uniform = [f"u{i}" for i in range(ROWS)]
    mixed = [f"m{i}" for i in range(ROWS)]
    values = np.random.default_rng(0).random((ROWS, COLUMNS), dtype=np.float32)
    for version in (1, 2, 3):
        (folder / "catalog.yaml").write_text(catalog_text(version))
        revision = source.publish().revision
        names = [*NAMES, *(f"later{i}" for i in range(1, version))]
        rows = range(version - 1, ROWS, 3)
        await write_rows(service, revision, [mixed[i] for i in rows], names, values[list(rows)])
        if version == 1:
            await write_rows(service, revision, uniform, names, values)
    context = RequestContext.begin(revision)
    uniform_query = [FeatureQuery("product", uniform, matrix=MATRIX)]
    mixed_query = [FeatureQuery("product", mixed, matrix=MATRIX)]
    loop = LmdbLoop(copy_of(folder / "store"), row_keys(RowKeys("product.stats", uniform)), COLUMNS)

    async def bare() -> object:
        return loop.get()

    figures = {
        "lmdb_vs_get_loop": await compare(lambda: service.read(uniform_query, context), bare),
        "mixed_versions_vs_uniform": await compare(
            lambda: service.read(mixed_query, context), lambda: service.read(uniform_query, context)
        ),
    }
    await service.close()
    return figures


@dataclass(frozen=True)
class RedisFixture:
    """Products in Redis, with 60 features in one group, and the same features in three groups."""

    address: str
    folder: Path
    source: DirectoryCatalog
    service: FeatureService
    revision: Revision
    values: Array

    def query(self, rows: int = ROWS) -> FeatureQuery:
        return FeatureQuery("product", self.ids[:rows], matrix=MATRIX)

    @property
    def ids(self) -> list[str]:
        return [str(n) for n in range(PRODUCTS)]


async def redis_fixture(folder: Path, address: str) -> RedisFixture:
    (folder / "catalog.yaml").write_text(catalog_text(1) + three_groups_text() + inferflow_text())
    write_mlp(folder / "models" / "mlp.onnx")
    source = DirectoryCatalog(folder, catalog_checks(ModelFiles(f"file://{folder}/models")))
    revision = source.publish().revision
    service = FeatureService(open_feature_store(f"redis://{address}"), source)
    values = np.random.default_rng(0).random((PRODUCTS, COLUMNS), dtype=np.float32)
    fixture = RedisFixture(address, folder, source, service, revision, values)
    await write_rows(service, revision, fixture.ids, NAMES, values)
    for third in range(THIRDS):
        columns = slice(20 * third, 20 * third + 20)
        await write_rows(
            service,
            revision,
            fixture.ids,
            NAMES[columns],
            values[:, columns],
            f"product.third{third}",
        )
    return fixture


async def measure_redis(fixture: RedisFixture) -> dict[str, Figure]:
    service, context = fixture.service, RequestContext.begin(fixture.revision)
    one_group = [fixture.query()]
    names = tuple(f"third{i // 20}.{name}" for i, name in enumerate(NAMES))
    three_groups = [FeatureQuery("product", fixture.ids[:ROWS], matrix=names)]
    (rows,) = await service.read(one_group, context)
    assert np.array_equal(rows.matrix, fixture.values[:ROWS])
    keys = row_keys(RowKeys("product.stats", fixture.ids[:ROWS]))
    raw = RawMget(fixture.address, keys)
    synchronous = SynchronousMget(fixture.address, keys)
    thirds = [f"product.third{i}" for i in range(THIRDS)]
    raw_three = RawMget(
        fixture.address,
        [key for group in thirds for key in row_keys(RowKeys(group, fixture.ids[:ROWS]))],
    )
    cached = FeatureService(
        open_feature_store(f"redis://{fixture.address}"),
        fixture.source,
        cache=FeatureCache(64 << 20, 3_600),
    )
    await cached.read(one_group, context)
    # With `fresh_s` 0, each read finds its rows too old, reads Redis and caches them again.
    stale = FeatureService(
        open_feature_store(f"redis://{fixture.address}"),
        fixture.source,
        cache=FeatureCache(64 << 20, 0.0),
    )
    figures = {
        "redis_vs_mget": await compare(lambda: service.read(one_group, context), raw.read),
        "redis_vs_mget_sync": await compare(
            lambda: service.read(one_group, context), synchronous.read
        ),
        "redis_3_groups_vs_mget": await compare(
            lambda: service.read(three_groups, context), raw_three.read
        ),
        "cache_vs_redis": await compare(
            lambda: cached.read(one_group, context), lambda: service.read(one_group, context)
        ),
        "cache_all_misses_vs_no_cache": await compare(
            lambda: stale.read(one_group, context), lambda: service.read(one_group, context)
        ),
        "cache_full_vs_no_cache": await _full_cache(fixture),
        "cache_bytes_vs_raw": Figure.reported([_cache_bytes() for _ in range(3)], "x"),
    }
    for side in (raw, raw_three, cached, stale):
        await side.close()
    synchronous.close()
    return figures


async def _full_cache(fixture: RedisFixture) -> Figure:
    """Read all products in turn with a cache that holds a twentieth of them, so it rarely hits."""
    full = FeatureService(
        open_feature_store(f"redis://{fixture.address}"),
        fixture.source,
        cache=FeatureCache(PRODUCTS // 20 * 464, 3_600),
    )
    batches = [
        [FeatureQuery("product", fixture.ids[start : start + ROWS], matrix=MATRIX)]
        for start in range(0, PRODUCTS, ROWS)
    ]
    context = RequestContext.begin(fixture.revision)
    cycles = [itertools.cycle(batches) for _ in range(2)]
    figure = await compare(
        lambda: full.read(next(cycles[0]), context),
        lambda: fixture.service.read(next(cycles[1]), context),
    )
    await full.close()
    return figure


def _cache_bytes() -> float:
    command = [sys.executable, "-m", "bench.feature_memory"]
    return float(subprocess.run(command, capture_output=True, check=True, text=True).stdout)


async def measure_feast(
    fixture: RedisFixture, folder: Path, entity_bytes: float
) -> dict[str, Figure]:
    """Compare reads and memory with Feast, which has the same rows in the same Redis server."""
    rows = folder / "rows.npz"
    np.savez(rows, ids=np.array(fixture.ids), values=fixture.values)
    before = used_memory(fixture.address)
    with feast_process(fixture.address, folder, rows) as feast:
        feast_bytes = (used_memory(fixture.address) - before) / PRODUCTS
        figures = {
            "redis_bytes_vs_feast": Figure(
                entity_bytes / feast_bytes,
                entity_bytes / feast_bytes,
                entity_bytes / feast_bytes,
                entity_bytes,
                feast_bytes,
                "bytes",
            )
        }
        for key, count in (("vs_feast_500x60", ROWS), ("vs_feast_1x60", 1)):
            rounds = []
            for _ in range(FEAST_ROUNDS + 1):
                kirana_rate = await _rows_per_s(fixture, count)
                print(count, FEAST_SECONDS, file=feast.stdin, flush=True)
                rounds.append((kirana_rate, float(line_of(feast))))
            figures[key] = Figure.of_rates(rounds[1:])
    return figures


@contextmanager
def feast_process(address: str, folder: Path, rows: Path) -> Iterator[subprocess.Popen[str]]:
    """Start Feast in its own environment, and wait until it has stored the rows in database 1."""
    side = Path(__file__).with_name("floors") / "feast_side.py"
    command = [str(feast_python()), str(side), address, "1", str(folder), str(rows)]
    with child(command) as feast:
        assert line_of(feast) == "ready"
        yield feast


async def _rows_per_s(fixture: RedisFixture, count: int) -> float:
    """Return the rows per second that Kirana reads into matrices, in random batches of `count`."""
    rng = np.random.default_rng(count)
    batches = [
        [FeatureQuery("product", rng.choice(PRODUCTS, count).astype(str).tolist(), matrix=MATRIX)]
        for _ in range(16)
    ]
    rows, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < FEAST_SECONDS:
        for batch in batches:
            (result,) = await fixture.service.read(batch, RequestContext.begin(fixture.revision))
            rows += len(result.matrix)
    return rows / elapsed


async def measure_http(fixture: RedisFixture) -> dict[str, Figure]:
    """Measure reads over HTTP in Protobuf, on the direct ports of two replicas without a cache."""
    with ray_cluster() as base:
        return await asyncio.to_thread(_http_rates, fixture, base)


def _http_rates(fixture: RedisFixture, base: str) -> dict[str, Figure]:
    # This imports Ray Serve, which reads environment variables that `ray_cluster` sets.
    from kirana.graphs.serving import graph

    url = f"redis://{fixture.address}"
    settings = local_settings(
        fixture.folder, {"features": url, "cache_bytes": 0, "replicas": REPLICAS}, environment={}
    )
    rng = np.random.default_rng(0)
    names = list(MATRIX)
    rates: dict[str, list[float]] = {"rows_per_s_500x60_http": [], "calls_per_s_1x60_http": []}
    with application(base, "redis", graph(settings)):
        urls = [port + "/v1/features/get" for port in endpoints(f"{base}/redis")]
        for key, count in (("rows_per_s_500x60_http", ROWS), ("calls_per_s_1x60_http", 1)):
            bodies = [
                features_get("product", {"product_id": ids}, names, provenance=False)
                for ids in rng.choice(PRODUCTS, (64, count)).astype(str).tolist()
            ]
            generator = Generator(fixture.folder, bodies, PROTOBUF)
            for _ in range(HTTP_ROUNDS + 1):
                rates[key].append(count * generator.run(urls, HTTP_SECONDS).per_s)
    return {key: Figure.reported(values[1:]) for key, values in rates.items()}
