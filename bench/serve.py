"""Load beyond the capacity of a replica, and time limits under load, on both doors.

There is one replica, so that the generators have the other core of a machine with two.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from bench.attack import Attack, Target
from bench.figures import Breakdown, Figure, Report
from bench.load import Generator, Load
from bench.processes import child, line_of
from bench.serve_data import CASES, LIMIT_MS, RANK, ServeFixture, make_fixture
from bench.serve_soak import memory_figures
from bench.serving import application, endpoints, ray_cluster

ROUNDS = 5
PEAK_S = 3
OVERLOAD_ROUNDS = 3
OVERLOAD_S = 60
FLOOD_S = 10
FLOODS = (16, 500, 1_500)
"""Connections of `wrk`, which sends the next request as soon as it has a reply."""
HEALTH_PER_S = 20
OVERRUN_S = 30
CASES_PER_S = 3
"""Requests per second that run into a limit. Each occupies a core for `LIMIT_MS`."""
USEFUL_MS = 1_000
"""A reply after more milliseconds than this is not counted as goodput."""


@dataclass(frozen=True, slots=True)
class Door:
    """A door of the application, and the URL of a no-op at the same door."""

    name: str
    url: str
    noop: str
    bodies: list[bytes]
    generator: Generator

    @property
    def suffix(self) -> str:
        """The end of the keys of this door's figures."""
        return "" if self.name == "direct" else f"_{self.name}"

    @property
    def ranks(self) -> list[Target]:
        return [Target(self.url + RANK, body) for body in self.bodies]

    @property
    def health(self) -> Target:
        return Target(f"{self.url}/healthz", method="GET")

    def peak(self) -> Load:
        """Return the median of several loads of 16 callers, by rate."""
        loads = []
        for _ in range(ROUNDS):
            # The last requests of the load before are still in the queue.
            self.settle()
            loads.append(self.generator.run([self.url + RANK], PEAK_S))
        return sorted(loads, key=lambda load: load.per_s)[ROUNDS // 2]

    def settle(self) -> None:
        """Wait until no connection of an earlier load is served any more."""
        quick = 0
        while quick < 5:
            began = time.perf_counter()
            httpx.post(self.url + RANK, content=self.bodies[0], timeout=60)
            quick = quick + 1 if time.perf_counter() - began < 0.1 else 0
            time.sleep(0.2)


async def measure() -> Report:
    """Measure both doors. `bench/README.md` describes the keys."""
    with tempfile.TemporaryDirectory(prefix="kb-") as temporary:
        fixture = await make_fixture(Path(temporary))
        with ray_cluster() as base:
            report = await asyncio.to_thread(_measure_all, fixture, base)
            memory = await asyncio.to_thread(memory_figures, Path(temporary, "soak"), base)
    return Report({**report.figures, **memory}, report.breakdowns, report.notes)


def _measure_all(fixture: ServeFixture, base: str) -> Report:
    # This imports Ray Serve, which reads environment variables that `ray_cluster` sets.
    from kirana.graphs.serving import graph

    figures: dict[str, Figure] = {}
    breakdowns: list[Breakdown] = []
    notes: list[str] = []
    settings = fixture.settings.model_copy(update={"replicas": 1})
    with application(base, "fused", graph(settings)) as front:
        (direct,) = endpoints(front, 1)
        with _doors(fixture, base, {"direct": direct, "haproxy": front}) as doors:
            for door in doors:
                figures |= _overload(door)
                breakdowns.append(_floods(door))
                notes.append(_cost(door))
            overruns = {"fused": _overruns(doors[0])}
    with application(
        base, "spread", graph(settings.model_copy(update={"placement": "spread"}))
    ) as f:
        (direct,) = endpoints(f, 1)
        with _doors(fixture, base, {"direct": direct}) as doors:
            overruns["spread"] = _overruns(doors[0])
    quarters = [by_load["a quarter of the peak"] for by_load in overruns.values()]
    worst = max(value for by_case in quarters for value in by_case.values())
    figures["overrun_p99_ms"] = Figure.reported([worst], "ms")
    breakdowns += [_overrun_table(placement, loads) for placement, loads in overruns.items()]
    return Report(figures, breakdowns, notes)


@contextmanager
def _doors(fixture: ServeFixture, base: str, urls: Mapping[str, str]) -> Iterator[list[Door]]:
    """Yield the doors at `urls`, with their no-ops."""
    from bench.floors.noop import NoOp

    with ExitStack() as stack:
        doors = []
        for name, url in urls.items():
            bodies = fixture.bodies[name]
            reply = httpx.post(url + RANK, content=bodies[0]).raise_for_status().content
            if name == "direct":
                noop = stack.enter_context(_noop_port(len(reply)))
            else:
                no_op = NoOp.options(num_replicas=1).bind(reply)  # type: ignore[attr-defined]
                noop = stack.enter_context(application(base, "noop", no_op))
            doors.append(Door(name, url, noop, bodies, Generator(fixture.folder, bodies)))
        yield doors


@contextmanager
def _noop_port(reply_bytes: int) -> Iterator[str]:
    command = [sys.executable, "-m", "bench.floors.noop_port", str(reply_bytes)]
    with child(command) as process:
        yield f"http://127.0.0.1:{line_of(process)}"


def _cost(door: Door) -> str:
    peak = door.peak()
    noops = [door.generator.run([door.noop + RANK], PEAK_S).per_s for _ in range(ROUNDS)]
    cost = statistics.median(noops) / peak.per_s
    return f"{door.name}: {peak.per_s:,.0f} requests per s, each costs {cost:.0f} no-ops"


def _overload(door: Door) -> dict[str, Figure]:
    """Send three times the rate of the peak, and `/healthz` beside it, several times.

    Each round measures the peak first, because the speed of a machine may change in minutes.
    """
    rounds = [_overload_round(door, door.peak()) for _ in range(OVERLOAD_ROUNDS)]
    return {
        f"{key}{door.suffix}": Figure.reported([figures[key] for figures in rounds], unit)
        for key, unit in _OVERLOAD_UNITS.items()
    }


_OVERLOAD_UNITS = {
    "goodput_at_3x": "",
    "p99_at_3x_vs_peak": "",
    "healthz_at_3x_p99_ms": "ms",
    "refused_at_3x_p99_ms": "ms",
}


def _overload_round(door: Door, peak: Load) -> dict[str, float]:
    with (
        Attack(door.ranks, 3 * peak.per_s, OVERLOAD_S) as attack,
        Attack([door.health], HEALTH_PER_S, OVERLOAD_S) as health,
    ):
        replies, healthy = attack.replies(), health.replies()
    useful = ((replies.status == 200) & (replies.ms <= USEFUL_MS)).sum() / OVERLOAD_S
    # Without a reply, or with another one, a check of health has failed.
    failed = float("inf") if set(healthy.counts()) != {200} else 0.0
    return {
        "goodput_at_3x": useful / peak.per_s,
        "p99_at_3x_vs_peak": replies.p99_ms(200) / peak.p99_ms,
        "healthz_at_3x_p99_ms": failed + healthy.p99_ms(),
        "refused_at_3x_p99_ms": replies.p99_ms(503),
    }


def _floods(door: Door) -> Breakdown:
    """Load a door with more and more connections, and `/healthz` beside it."""
    parts: dict[str, float] = {}
    for connections in FLOODS:
        door.settle()
        with Attack([door.health], HEALTH_PER_S, FLOOD_S) as health:
            load = door.generator.flood([door.url + RANK], FLOOD_S, connections)
            healthy = health.replies()
        figures = {
            "replies with 200 per s": load.per_s - load.refused_per_s,
            "refused per s": load.refused_per_s,
            "broken, or later than 2 s": load.broken,
            "p50 ms": load.p50_ms,
            "p99 ms": load.p99_ms,
            "max ms": load.max_ms,
            "p99 ms of healthz": healthy.p99_ms(),
            "% of healthz with 200": 100 * float((healthy.status == 200).mean()),
        }
        parts |= {f"{connections}: {name}": value for name, value in figures.items()}
    return Breakdown(f"connections of wrk, {door.name}", "", parts)


def _overruns(door: Door) -> dict[str, dict[str, float]]:
    """Return by how many milliseconds limits are overrun at p99, by load and case."""
    peak = door.peak()
    loads = {"a quarter of the peak": 0.25, "the peak": 1.0, "three times the peak": 3.0}
    overruns: dict[str, dict[str, float]] = {}
    for load, times in loads.items():
        overruns[load] = {}
        for case in CASES:
            target = Target(door.url + case.path, case.body, headers=case.headers)
            with (
                Attack(door.ranks, times * peak.per_s, OVERRUN_S),
                Attack([target], CASES_PER_S, OVERRUN_S) as cases,
            ):
                replies = cases.replies()
            overruns[load][case.name] = replies.p99_ms(case.status) - LIMIT_MS
    return overruns


def _overrun_table(placement: str, overruns: Mapping[str, Mapping[str, float]]) -> Breakdown:
    parts = {
        f"{load}: {case}": value
        for load, by_case in overruns.items()
        for case, value in by_case.items()
    }
    return Breakdown(f"overrun of limits at p99, {placement}", "ms", parts)
