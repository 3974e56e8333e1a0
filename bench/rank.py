"""A ranking request over HTTP (500 ids, 500 x 60 features, an MLP, the best 50) and its steps."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np

from bench.feature_data import COLUMNS, NAMES, PRODUCTS, ROWS, catalog_text, write_rows
from bench.figures import Breakdown, Figure, Report
from bench.floors.rank_loop import RankLoop
from bench.infer import inferflow_text, write_mlp
from bench.load import Generator, Load
from bench.paired import compare_rates, seconds_of_each
from bench.processes import child, line_of
from bench.servers import redis_server
from bench.serving import REPLICAS, application, endpoints, ray_cluster
from kirana.cli.locations import local_settings
from kirana.edge.exchange import Request
from kirana.edge.headers import Headers
from kirana.edge.messages import Infer
from kirana.features import FeatureQuery
from kirana.features.part import FEATURES
from kirana.features.service import FeatureService
from kirana.inferflow import InferRequest
from kirana.inferflow.part import INFERFLOW
from kirana.models.part import MODELS
from kirana.models.runner import MATRIX
from kirana.request import RequestContext
from kirana.serving.assembly import Assembly, catalog_backend, open_catalog
from kirana.serving.environment import ALLOW_UNTUNED, REQUIRED, free_ports
from kirana.serving.settings import Settings

BODIES = 64
ROUNDS = 5
SECONDS = 3
INFER = "/v1/infer/ranker"


@dataclass(frozen=True, slots=True)
class Fixture:
    """A published catalog with its model, features in LMDB, and requests."""

    folder: Path
    settings: Settings
    bodies: list[bytes]
    values: np.ndarray[tuple[int, int], np.dtype[np.float32]]

    def variant(self, **changes: object) -> Settings:
        return self.settings.model_copy(update=changes)

    async def write_to(self, features: str) -> None:
        """Write all rows to the feature store at the URL `features`."""
        settings = self.variant(features=features)
        source = open_catalog(settings)
        service = Assembly(settings, source)[FEATURES]
        assert isinstance(service, FeatureService)
        ids = [str(n) for n in range(PRODUCTS)]
        await write_rows(service, source.current(), ids, NAMES, self.values)
        await service.close()


async def measure() -> Report:
    """Measure ranking requests. `bench/README.md` describes the keys."""
    with tempfile.TemporaryDirectory(prefix="kb-") as temporary:
        fixture = await make_fixture(Path(temporary))
        steps = await in_process_steps(fixture)
        with ray_cluster() as base:
            return await asyncio.to_thread(compare_all, fixture, base, steps)


def compare_all(fixture: Fixture, base: str, steps: dict[str, float]) -> Report:
    """Compare the sides in pairs. Start an application only when a pair needs it.

    `steps` has the microseconds per step in one process. The steps over HTTP are added.
    """
    # This imports Ray Serve, which reads environment variables that `ray_cluster` sets.
    from bench.floors.hops import HopFeatures, HopIngress, HopModel, HopRanker
    from bench.floors.noop import NoOp
    from kirana.graphs.serving import graph

    rates = Rates(Generator(fixture.folder, fixture.bodies))
    figures: dict[str, Figure] = {}
    fused = graph(fixture.variant(replicas=REPLICAS))
    with application(base, "lmdb", fused):
        reply = httpx.post(f"{base}/lmdb{INFER}", content=fixture.bodies[0])
        reply.raise_for_status()
        lmdb = rates.of("lmdb", f"{base}/lmdb")
        lmdb_direct = rates.of("lmdb, direct", *endpoints(f"{base}/lmdb"))
        no_op = NoOp.options(num_replicas=REPLICAS).bind(reply.content)  # type: ignore[attr-defined]
        with application(base, "noop", no_op):
            noop = rates.of("no-op", f"{base}/noop")
            figures["lmdb_vs_noop"] = compare_rates(lmdb, noop, ROUNDS)
            figures |= compare_redis(fixture, base, rates, noop)
        with rank_loops(fixture) as loops:
            figures["direct_vs_in_process"] = compare_rates(
                lmdb_direct, lambda: loop_rate(loops, rates.last("lmdb, direct").cpu_share), ROUNDS
            )
        ranker = HopRanker.bind(HopFeatures.bind(), HopModel.bind())  # type: ignore[attr-defined]
        hops_graph = HopIngress.bind(reply.content, ranker)  # type: ignore[attr-defined]
        with application(base, "spread", graph(fixture.variant(placement="spread"))):
            spread = rates.of("spread", f"{base}/spread")
            with application(base, "hops", hops_graph):
                hops = rates.of("bare hops", f"{base}/hops")
                figures["remote_vs_bare_hops"] = compare_rates(spread, hops, ROUNDS)
            figures["fused_vs_remote"] = compare_rates(lmdb, spread, ROUNDS)
        with ray_defaults(fixture) as url:
            defaults = rates.of("ray defaults", url)
            figures["tuned_vs_ray_defaults"] = compare_rates(lmdb, defaults, ROUNDS)
    for name in ("lmdb", "cache"):
        rows = [ROWS * load.per_s for load in rates.loads[f"{name}, direct"][1:]]
        figures[f"rows_per_s_direct_{name}"] = Figure.reported(rows)
    cores = os.cpu_count() or 1
    direct_us = _cpu_us(rates.loads["lmdb, direct"], cores)
    steps["HTTP on the direct port (uvicorn), both cores at work"] = direct_us - sum(steps.values())
    # Only the rounds of the first comparison: more applications were running in later rounds.
    front_door_us = _cpu_us(rates.loads["lmdb"][: ROUNDS + 1], cores)
    steps["through HAProxy and Serve instead, in addition"] = front_door_us - direct_us
    breakdown = Breakdown("where the time of one ranking request goes (lmdb)", "us of CPU", steps)
    return Report(figures, [breakdown], rates.notes())


def compare_redis(
    fixture: Fixture, base: str, rates: Rates, noop: Callable[[], float]
) -> dict[str, Figure]:
    """Compare ranking requests from Redis without a cache, and from a cache with all rows."""
    from kirana.graphs.serving import graph

    figures = {}
    with redis_server() as address:
        asyncio.run(fixture.write_to(f"redis://{address}"))
        redis = fixture.variant(replicas=REPLICAS, features=f"redis://{address}", cache_bytes=0)
        with application(base, "redis", graph(redis)):
            figures["redis_vs_noop"] = compare_rates(
                rates.of("redis", f"{base}/redis"), noop, ROUNDS
            )
        cached = redis.model_copy(update={"cache_bytes": 64 << 20, "cache_fresh_ms": 3_600_000})
        with application(base, "cache", graph(cached)):
            cache = rates.of("cache", f"{base}/cache")
            direct = rates.of("cache, direct", *endpoints(f"{base}/cache"))
            figures["cache_vs_noop"] = compare_rates(cache, noop, ROUNDS)
            figures["direct_vs_haproxy"] = compare_rates(direct, cache, ROUNDS)
    return figures


class Rates:
    """Rates measured with one generator. `loads` keeps the results of all loads, by name."""

    def __init__(self, generator: Generator) -> None:
        self._generator = generator
        self.loads: dict[str, list[Load]] = {}

    def of(self, name: str, *urls: str) -> Callable[[], float]:
        """Return a function that loads all `urls` at once, and returns the requests per second."""

        def run() -> float:
            load = self._generator.run([url + INFER for url in urls], SECONDS)
            self.loads.setdefault(name, []).append(load)
            return load.per_s

        return run

    def last(self, name: str) -> Load:
        return self.loads[name][-1]

    def notes(self) -> list[str]:
        return [
            f"{name}: p50 {_median(runs, 'p50_ms'):.1f} ms, p99 {_median(runs, 'p99_ms'):.1f} ms, "
            f"{_median(runs, 'per_s'):,.0f}/s; the generator took {_median(runs, 'cpu_share'):.0%} "
            "of the CPU"
            for name, runs in self.loads.items()
        ]


def loop_rate(loops: list[subprocess.Popen[str]], idle_share: float) -> float:
    """Run all loops at once for `SECONDS`, and return the sum of their calls per second.

    Each loop is asleep for `idle_share` of the time.
    """
    for process in loops:
        assert process.stdin is not None
        process.stdin.write(f"{SECONDS} {idle_share}\n")
        process.stdin.flush()
    return sum(float(line_of(process)) for process in loops)


def _cpu_us(loads: list[Load], cores: int) -> float:
    """Return the microseconds of CPU per request, without those of the generator.

    The first load is a warm-up and does not count. This assumes that a load keeps all cores busy.
    """
    return float(np.median([cores * (1 - load.cpu_share) / load.per_s for load in loads[1:]])) * 1e6


def _median(loads: list[Load], name: str) -> float:
    return float(np.median([getattr(load, name) for load in loads]))


async def make_fixture(folder: Path) -> Fixture:
    (folder / "catalog.yaml").write_text(catalog_text(1) + inferflow_text())
    (folder / "models").mkdir()
    write_mlp(folder / "models" / "mlp.onnx")
    settings = local_settings(folder, {})
    catalog_backend(settings).publish()
    rng = np.random.default_rng(0)
    values = rng.random((PRODUCTS, COLUMNS), dtype=np.float32)
    bodies = [
        json.dumps(
            {
                "context": {
                    "product_id": rng.choice(PRODUCTS, ROWS, replace=False).astype(str).tolist()
                },
                "top_k": 50,
            }
        ).encode()
        for _ in range(BODIES)
    ]
    (folder / "bodies.txt").write_bytes(b"\n".join(bodies))
    (folder / "settings.json").write_text(settings.model_dump_json())
    fixture = Fixture(folder, settings, bodies, values)
    await fixture.write_to(settings.features)
    return fixture


@contextmanager
def ray_defaults(fixture: Fixture) -> Iterator[str]:
    tuned = (*REQUIRED, "RAY_SERVE_")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(tuned)} | {
        ALLOW_UNTUNED: "1"
    }
    settings = fixture.folder / "defaults.json"
    settings.write_text(fixture.variant(replicas=REPLICAS, direct_ports="off").model_dump_json())
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "bench.ray_defaults", str(settings), str(port)]
    with child(command, environment) as process:
        yield line_of(process)


@contextmanager
def rank_loops(fixture: Fixture) -> Iterator[list[subprocess.Popen[str]]]:
    folder = fixture.folder
    command = [
        sys.executable,
        "-m",
        "bench.floors.rank_loop",
        str(folder / "settings.json"),
        "ranker",
        str(folder / "bodies.txt"),
    ]
    with ExitStack() as stack:
        loops = [stack.enter_context(child(command)) for _ in range(REPLICAS)]
        for loop in loops:
            assert line_of(loop) == "ready"
        yield loops


async def in_process_steps(fixture: Fixture) -> dict[str, float]:
    """Return the microseconds per step of a ranking request. Each step is measured alone."""
    loop = RankLoop(fixture.settings, "ranker", fixture.bodies)
    assembly = loop.assembly
    context = RequestContext.begin(open_catalog(fixture.settings).current())
    request = Request(("ranker",), b"", Headers(), fixture.bodies[0], context)
    message = await request.decode(Infer)
    ids = [str(id_) for id_ in json.loads(fixture.bodies[0])["context"]["product_id"]]
    query = [FeatureQuery("product", ids, matrix=tuple(f"stats.{name}" for name in NAMES))]
    matrix = (await assembly[FEATURES].read(query, context))[0].matrix
    infer = InferRequest("ranker", message.context, top_k=50, keep_matrix=False)

    seconds = await seconds_of_each(
        lambda: request.decode(Infer),
        lambda: assembly[FEATURES].read(query, context),
        lambda: assembly[MODELS].run("mlp", {MATRIX: matrix}, ["p_click"], context),
        lambda: assembly[INFERFLOW].infer(infer, context),
        loop.call,
    )
    parse, read, model, ranked, total = (1e6 * duration_s for duration_s in seconds)
    await assembly.close()
    return {
        "parse the request": parse,
        "read and decode 500 rows x 60 from LMDB": read,
        "score by the MLP (ONNX Runtime)": model,
        "ids, matrix, order: the rest of Inferflow": ranked - read - model,
        "write the reply, and the rest of the handler": total - parse - ranked,
    }
