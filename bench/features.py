"""Feature reads beside the raw databases and Feast: 500 keys x 60 float32."""

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
    THREE,
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
from kirana.serving.checks import checks_of
from kirana.stores import open_feature_store
from kirana.stores.row_keys import row_keys
from kirana.stores.rows import RowKeys

FEAST_ROUNDS = 5
FEAST_SECONDS = 2.0
HTTP_ROUNDS = 5
HTTP_SECONDS = 3
PROTOBUF = "application/x-protobuf"


async def measure() -> Report:
    """See `bench/README.md` for the keys."""
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
    """`lmdb_vs_get_loop`: the whole read path / `txn.get` in a loop, which decodes nothing.

    `mixed_versions_vs_uniform`: rows of three schema versions mixed / of one.
    """
    source = DirectoryCatalog(folder, checks_of())
    service = FeatureService(open_feature_store(f"lmdb://{folder}/store"), source)
    uniform = [f"u{at}" for at in range(ROWS)]
    mixed = [f"m{at}" for at in range(ROWS)]
    values = np.random.default_rng(0).random((ROWS, COLUMNS), dtype=np.float32)
    for version in (1, 2, 3):
        (folder / "catalog.yaml").write_text(catalog_text(version))
        revision = source.publish().revision
        names = [*NAMES, *(f"later{at}" for at in range(1, version))]
        rows = range(version - 1, ROWS, 3)
        await write_rows(service, revision, [mixed[at] for at in rows], names, values[list(rows)])
        if version == 1:
            await write_rows(service, revision, uniform, names, values)
    context = RequestContext.begin(revision)
    one = [FeatureQuery("product", uniform, matrix=MATRIX)]
    three = [FeatureQuery("product", mixed, matrix=MATRIX)]
    loop = LmdbLoop(copy_of(folder / "store"), row_keys(RowKeys("product.stats", uniform)), COLUMNS)

    async def bare() -> object:
        return loop.get()

    figures = {
        "lmdb_vs_get_loop": await compare(lambda: service.read(one, context), bare),
        "mixed_versions_vs_uniform": await compare(
            lambda: service.read(three, context), lambda: service.read(one, context)
        ),
    }
    await service.close()
    return figures


@dataclass(frozen=True)
class RedisFixture:
    """Products with 60 features in one group, and the same in three, in one Redis."""

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
        return [str(at) for at in range(PRODUCTS)]


async def redis_fixture(folder: Path, address: str) -> RedisFixture:
    (folder / "catalog.yaml").write_text(catalog_text(1) + three_groups_text() + inferflow_text())
    write_mlp(folder / "models" / "mlp.onnx")
    source = DirectoryCatalog(folder, checks_of(ModelFiles(f"file://{folder}/models")))
    revision = source.publish().revision
    service = FeatureService(open_feature_store(f"redis://{address}"), source)
    values = np.random.default_rng(0).random((PRODUCTS, COLUMNS), dtype=np.float32)
    found = RedisFixture(address, folder, source, service, revision, values)
    await write_rows(service, revision, found.ids, NAMES, values)
    for at in range(THREE):
        some = slice(20 * at, 20 * at + 20)
        await write_rows(
            service, revision, found.ids, NAMES[some], values[:, some], f"product.third{at}"
        )
    return found


async def measure_redis(fixture: RedisFixture) -> dict[str, Figure]:
    service, context = fixture.service, RequestContext.begin(fixture.revision)
    one = [fixture.query()]
    names = tuple(f"third{at // 20}.{name}" for at, name in enumerate(NAMES))
    three = [FeatureQuery("product", fixture.ids[:ROWS], matrix=names)]
    (rows,) = await service.read(one, context)
    assert np.array_equal(rows.matrix, fixture.values[:ROWS])
    keys = row_keys(RowKeys("product.stats", fixture.ids[:ROWS]))
    raw = RawMget(fixture.address, keys)
    synchronous = SynchronousMget(fixture.address, keys)
    thirds = [f"product.third{at}" for at in range(THREE)]
    raw_three = RawMget(
        fixture.address, [k for each in thirds for k in row_keys(RowKeys(each, fixture.ids[:ROWS]))]
    )
    cached = FeatureService(
        open_feature_store(f"redis://{fixture.address}"),
        fixture.source,
        cache=FeatureCache(64 << 20, 3_600),
    )
    await cached.read(one, context)
    # rows are kept, and too old as soon as they are: each is looked up, missed, read and kept
    stale = FeatureService(
        open_feature_store(f"redis://{fixture.address}"),
        fixture.source,
        cache=FeatureCache(64 << 20, 0.0),
    )
    figures = {
        "redis_vs_mget": await compare(lambda: service.read(one, context), raw.read),
        "redis_vs_mget_sync": await compare(lambda: service.read(one, context), synchronous.read),
        "redis_3_groups_vs_mget": await compare(
            lambda: service.read(three, context), raw_three.read
        ),
        "cache_vs_redis": await compare(
            lambda: cached.read(one, context), lambda: service.read(one, context)
        ),
        "cache_all_misses_vs_no_cache": await compare(
            lambda: stale.read(one, context), lambda: service.read(one, context)
        ),
        "cache_full_vs_no_cache": await _full_cache(fixture),
        "cache_bytes_vs_raw": Figure.reported([_cache_bytes() for _ in range(3)], "x"),
    }
    for each in (raw, raw_three, cached, stale):
        await each.close()
    synchronous.close()
    return figures


async def _full_cache(fixture: RedisFixture) -> Figure:
    """Walk over all products with a cache of a twentieth of them: none is there when it is read."""
    full = FeatureService(
        open_feature_store(f"redis://{fixture.address}"),
        fixture.source,
        cache=FeatureCache(PRODUCTS // 20 * 464, 3_600),
    )
    batches = [
        [FeatureQuery("product", fixture.ids[at : at + ROWS], matrix=MATRIX)]
        for at in range(0, PRODUCTS, ROWS)
    ]
    context = RequestContext.begin(fixture.revision)
    turns = [itertools.cycle(batches) for _ in range(2)]
    figure = await compare(
        lambda: full.read(next(turns[0]), context),
        lambda: fixture.service.read(next(turns[1]), context),
    )
    await full.close()
    return figure


def _cache_bytes() -> float:
    command = [sys.executable, "-m", "bench.feature_memory"]
    return float(subprocess.run(command, capture_output=True, check=True, text=True).stdout)


async def measure_feast(
    fixture: RedisFixture, folder: Path, entity_bytes: float
) -> dict[str, Figure]:
    """The same rows in the same Redis, read in turn."""
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
                ours = await _rows_per_s(fixture, count)
                print(count, FEAST_SECONDS, file=feast.stdin, flush=True)
                rounds.append((ours, float(line_of(feast))))
            figures[key] = Figure.of_rates(rounds[1:])
    return figures


@contextmanager
def feast_process(address: str, folder: Path, rows: Path) -> Iterator[subprocess.Popen[str]]:
    """Feast with the rows in Redis' second database, under its own Python."""
    side = Path(__file__).with_name("floors") / "feast_side.py"
    command = [str(feast_python()), str(side), address, "1", str(folder), str(rows)]
    with child(command) as feast:
        assert line_of(feast) == "ready"
        yield feast


async def _rows_per_s(fixture: RedisFixture, count: int) -> float:
    """Read random batches in turn, each to a matrix, as the other side does."""
    rng = np.random.default_rng(count)
    batches = [
        [FeatureQuery("product", rng.choice(PRODUCTS, count).astype(str).tolist(), matrix=MATRIX)]
        for _ in range(16)
    ]
    rows, began = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - began) < FEAST_SECONDS:
        for batch in batches:
            (found,) = await fixture.service.read(batch, RequestContext.begin(fixture.revision))
            rows += len(found.matrix)
    return rows / elapsed


async def measure_http(fixture: RedisFixture) -> dict[str, Figure]:
    """Reads over HTTP, on the direct ports of two replicas without a cache, to Proto3."""
    with ray_cluster() as base:
        return await asyncio.to_thread(_http_rates, fixture, base)


def _http_rates(fixture: RedisFixture, base: str) -> dict[str, Figure]:
    # it reads Ray's variables, which the cluster has set
    from kirana.graphs.serving import graph

    url = f"redis://{fixture.address}"
    settings = local_settings(
        fixture.folder, {"features": url, "cache_bytes": 0, "replicas": REPLICAS}, environment={}
    )
    rng = np.random.default_rng(0)
    names = list(MATRIX)
    found: dict[str, list[float]] = {"rows_per_s_500x60_http": [], "calls_per_s_1x60_http": []}
    with application(base, "redis", graph(settings)):
        urls = [each + "/v1/features/get" for each in endpoints(f"{base}/redis")]
        for key, count in (("rows_per_s_500x60_http", ROWS), ("calls_per_s_1x60_http", 1)):
            bodies = [
                features_get("product", {"product_id": ids}, names, provenance=False)
                for ids in rng.choice(PRODUCTS, (64, count)).astype(str).tolist()
            ]
            generator = Generator(fixture.folder, bodies, PROTOBUF)
            for _ in range(HTTP_ROUNDS + 1):
                found[key].append(count * generator.run(urls, HTTP_SECONDS).per_s)
    return {key: Figure.reported(each[1:]) for key, each in found.items()}
