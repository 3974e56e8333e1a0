"""The cost of the client: reads from LMDB on direct ports, compared with wrk and HTTP libraries."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path

import orjson
import uvloop

from bench.feature_data import NAMES, ROWS
from bench.figures import Report
from bench.floors.http_clients import aiohttp_bytes, httpx_bytes, httpx_json
from bench.load import CONNECTIONS, Generator
from bench.paired import compare_rates
from bench.rank import make_fixture
from bench.serving import REPLICAS, endpoints, ray_cluster
from kirana.client import AsyncClient
from kirana.client.wire import features_get

GET = "/v1/features/get"
FEATURES = [f"stats.{name}" for name in NAMES]
ROUNDS = 5
SECONDS = 2

Call = Callable[[], Awaitable[object]]
Side = Callable[[], AbstractAsyncContextManager[Call]]


async def measure() -> Report:
    """Measure the client. `bench/README.md` describes the keys."""
    with tempfile.TemporaryDirectory(prefix="kb-") as temporary:
        fixture = await make_fixture(Path(temporary))
        with ray_cluster() as base:
            from ray import serve

            from kirana.graphs.serving import graph

            application = graph(fixture.variant(replicas=REPLICAS))
            serve.run(application, name="kirana", route_prefix="/")
            return await asyncio.to_thread(_compare_all, base, fixture.folder)


def _compare_all(base: str, folder: Path) -> Report:
    urls = [url + GET for url in endpoints(base)]
    figures = {}
    for rows in (ROWS, 1):
        keys = {"product_id": [str(n) for n in range(rows)]}
        body = features_get("product", keys, FEATURES, False)
        json = orjson.dumps({"entity": "product", "keys": keys, "features": FEATURES})
        generator = Generator(folder, [body], "application/x-protobuf")

        def wrk(generator: Generator = generator) -> float:
            return generator.run(urls, SECONDS).per_s

        kirana_rate = _rate(partial(_kirana, base, keys))
        name = f"client_{rows}x{len(FEATURES)}"
        figures[f"{name}_vs_wrk"] = compare_rates(kirana_rate, wrk, ROUNDS)
        httpx_rate = _rate(partial(httpx_json, urls, json, CONNECTIONS))
        figures[f"{name}_vs_httpx_json"] = compare_rates(kirana_rate, httpx_rate, ROUNDS)
        aiohttp_rate = _rate(partial(aiohttp_bytes, urls, body, CONNECTIONS))
        figures[f"aiohttp_vs_httpx_{rows}x{len(FEATURES)}"] = compare_rates(
            aiohttp_rate, _rate(partial(httpx_bytes, urls, body, CONNECTIONS)), ROUNDS
        )
    return Report(figures)


def _rate(side: Side) -> Callable[[], float]:
    """Return a function that measures the calls per second of `CONNECTIONS` callers in one loop."""
    return lambda: uvloop.run(_calls_per_s(side))


async def _calls_per_s(side: Side) -> float:
    async with side() as call:
        await asyncio.gather(*(call() for _ in range(CONNECTIONS)))
        calls, start = 0, time.perf_counter()

        async def caller() -> None:
            nonlocal calls
            while time.perf_counter() - start < SECONDS:
                await call()
                calls += 1

        await asyncio.gather(*(caller() for _ in range(CONNECTIONS)))
        return calls / (time.perf_counter() - start)


@asynccontextmanager
async def _kirana(base: str, keys: dict[str, list[str]]) -> AsyncIterator[Call]:
    async with AsyncClient(base) as client:

        async def call() -> object:
            return (await client.get_features("product", keys, FEATURES)).matrix

        yield call
