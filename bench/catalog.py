"""A catalog of 5,000 objects: checks, changes of one object, and their effect on requests."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path

import httpx

from bench.catalog_data import write_large_catalog
from bench.figures import Figure, Report
from bench.load import Generator, Load
from bench.rank import INFER, Fixture, make_fixture
from bench.serving import REPLICAS, application, endpoints, ray_cluster

ROUNDS = 5
SECONDS = 4
AFTER_S = 1.0
"""Seconds between the start of the load and the PUT of an object."""

KEEP = count(101)
"""New values for the field `keep` of an event type."""


async def measure() -> Report:
    """Measure commands, memory and publishes. `bench/README.md` describes the keys."""
    with tempfile.TemporaryDirectory(prefix="kb-") as temporary:
        fixture = await make_fixture(Path(temporary))
        objects = write_large_catalog(fixture.folder)
        figures = await asyncio.to_thread(measure_commands, fixture.folder)
        figures |= await asyncio.to_thread(measure_memory, fixture.folder)
        with ray_cluster() as base:
            figures |= await asyncio.to_thread(measure_publish, fixture, base)
    return Report(figures, notes=[f"{objects} objects"])


def measure_commands(folder: Path) -> dict[str, Figure]:
    """Measure the commands `kirana check`, and `kirana apply` after an edit of one object."""
    _kirana("apply", folder)
    checks = [_kirana("check", folder) for _ in range(3)]
    applies = []
    for _ in range(ROUNDS):
        file = folder / "events.yaml"
        text = re.sub(r"keep: \d+", f"keep: {next(KEEP)}", file.read_text(), count=1)
        file.write_text(text)
        applies.append(_kirana("apply", folder))
    return {
        "check_5000_s": Figure.reported(checks, "s"),
        "apply_one_of_5000_s": Figure.reported(applies, "s"),
    }


def _kirana(command: str, folder: Path) -> float:
    """Run a command of Kirana, and return the seconds that it took."""
    start = time.perf_counter()
    arguments = [sys.executable, "-m", "kirana", command, str(folder)]
    subprocess.run(arguments, check=True, capture_output=True)
    return time.perf_counter() - start


def measure_memory(folder: Path) -> dict[str, Figure]:
    """Measure the memory of ten revisions in a process / the memory of one revision."""
    command = [sys.executable, "-m", "bench.catalog_memory", str(folder)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    one_revision, ten_revisions = (float(number) for number in output.split())
    figure = Figure(
        ten_revisions / one_revision,
        ten_revisions / one_revision,
        ten_revisions / one_revision,
        ten_revisions / 2**20,
        one_revision / 2**20,
        "MB",
    )
    return {"ten_revisions_vs_one_memory": figure}


def measure_publish(fixture: Fixture, base: str) -> dict[str, Figure]:
    """Measure how long a PUT takes to reach both replicas, and ranking requests meanwhile."""
    # This imports Ray Serve, which reads environment variables that `ray_cluster` sets.
    from kirana.graphs.serving import graph

    with application(base, "catalog", graph(fixture.variant(replicas=REPLICAS))):
        ports = endpoints(f"{base}/catalog")
        urls = [port + INFER for port in ports]
        generator = Generator(fixture.folder, fixture.bodies)
        generator.run(urls, SECONDS)
        seconds: list[float] = []
        p99: list[tuple[float, float]] = []
        p50: list[tuple[float, float]] = []
        for _ in range(ROUNDS):
            before = generator.run(urls, SECONDS)
            during, put_s = _load_during_a_put(generator, urls, ports)
            seconds.append(put_s)
            p99.append((during.p99_ms, before.p99_ms))
            p50.append((during.p50_ms, before.p50_ms))
    return {
        "publish_one_of_5000_s": Figure.reported(seconds, "s"),
        "p99_during_publish_vs_before": _latency_ratio(p99),
        "p50_during_publish_vs_before": _latency_ratio(p50),
    }


def _latency_ratio(rounds: Sequence[tuple[float, float]]) -> Figure:
    """Return the figure for A's latency / B's, from one pair of milliseconds per round."""
    figure = Figure.of_rates(rounds)
    return Figure(figure.value, figure.low, figure.high, figure.a, figure.b, "ms")


def _load_during_a_put(
    generator: Generator, urls: Sequence[str], ports: Sequence[str]
) -> tuple[Load, float]:
    with ThreadPoolExecutor(1) as pool:
        load = pool.submit(generator.run, urls, SECONDS)
        time.sleep(AFTER_S)
        put_s = _put(ports)
        return load.result(), put_s


def _put(ports: Sequence[str]) -> float:
    """Change one event type, and return the seconds until all replicas use the new revision."""
    start = time.perf_counter()
    body = {"object": {"keep": next(KEEP)}}
    reply = httpx.put(f"{ports[0]}/v1/catalog/event_type/ev1x", json=body, timeout=60.0)
    expected = reply.raise_for_status().json()["revision"]
    waiting = list(ports)
    with httpx.Client(timeout=60.0) as client:
        while waiting:
            revision = client.get(f"{waiting[0]}/v1/catalog/event_type/ev1x").json()["revision"]
            if revision >= expected:
                waiting.pop(0)
            else:
                time.sleep(0.005)
    return time.perf_counter() - start
