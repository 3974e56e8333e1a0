"""A catalog of 5,000 objects: to check it, to change one of them, and what ranks notice of that."""

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
"""Into the load, the object is put."""

KEEP = count(100)


async def measure() -> Report:
    """See `bench/README.md` for the keys."""
    with tempfile.TemporaryDirectory(prefix="kb-") as temporary:
        fixture = await make_fixture(Path(temporary))
        objects = write_large_catalog(fixture.folder)
        figures = await asyncio.to_thread(measure_commands, fixture.folder)
        figures |= await asyncio.to_thread(measure_memory, fixture.folder)
        with ray_cluster() as base:
            figures |= await asyncio.to_thread(measure_publish, fixture, base)
    return Report(figures, notes=[f"{objects} objects"])


def measure_commands(folder: Path) -> dict[str, Figure]:
    """`kirana check`, and `kirana apply` after one object was edited: each a process of its own."""
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
    """Return the seconds that a command took."""
    began = time.perf_counter()
    words = [sys.executable, "-m", "kirana", command, str(folder)]
    subprocess.run(words, check=True, capture_output=True)
    return time.perf_counter() - began


def measure_memory(folder: Path) -> dict[str, Figure]:
    """What a process has taken with ten revisions kept / with one."""
    command = [sys.executable, "-m", "bench.catalog_memory", str(folder)]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    one, ten = (float(each) for each in said.split())
    figure = Figure(ten / one, ten / one, ten / one, ten / 2**20, one / 2**20, "MB")
    return {"ten_revisions_vs_one_memory": figure}


def measure_publish(fixture: Fixture, base: str) -> dict[str, Figure]:
    """A PUT of one object, until both replicas rank on it, beside ranks on both direct ports."""
    # it reads Ray's variables, which the cluster has set
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
            beside, took = _beside_a_put(generator, urls, ports)
            seconds.append(took)
            p99.append((beside.p99_ms, before.p99_ms))
            p50.append((beside.p50_ms, before.p50_ms))
    return {
        "publish_one_of_5000_s": Figure.reported(seconds, "s"),
        "p99_during_publish_vs_before": _of_ms(p99),
        "p50_during_publish_vs_before": _of_ms(p50),
    }


def _of_ms(rounds: Sequence[tuple[float, float]]) -> Figure:
    found = Figure.of_rates(rounds)
    return Figure(found.value, found.low, found.high, found.a, found.b, "ms")


def _beside_a_put(
    generator: Generator, urls: Sequence[str], ports: Sequence[str]
) -> tuple[Load, float]:
    with ThreadPoolExecutor(1) as pool:
        load = pool.submit(generator.run, urls, SECONDS)
        time.sleep(AFTER_S)
        took = _put(ports)
        return load.result(), took


def _put(ports: Sequence[str]) -> float:
    """Change one event type; return the seconds until all replicas have the revision."""
    began = time.perf_counter()
    body = {"object": {"keep": next(KEEP)}}
    reply = httpx.put(f"{ports[0]}/v1/catalog/event_type/ev1x", json=body, timeout=60.0)
    wanted = reply.raise_for_status().json()["revision"]
    waiting = list(ports)
    with httpx.Client(timeout=60.0) as client:
        while waiting:
            found = client.get(f"{waiting[0]}/v1/catalog/event_type/ev1x").json()["revision"]
            if found >= wanted:
                waiting.pop(0)
            else:
                time.sleep(0.005)
    return time.perf_counter() - began
