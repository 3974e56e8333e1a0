"""Many publishes with a new model each, and the memory of a replica that serves meanwhile."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import httpx
import psutil

from bench.attack import Attack, Target
from bench.feature_data import catalog_text
from bench.figures import Figure
from bench.infer import inferflow_text, write_mlp
from bench.serving import application, endpoints
from kirana.cli.locations import local_settings
from kirana.serving.assembly import catalog_backend

PUBLISHES = 100
SETTLED = 3
"""The number of publishes after which memory is measured for the first time."""
HIDDEN = 20_000
"""The hidden units of a model, which give it 4.9 MB of weights."""
REQUESTS_PER_S = 20
TIMEOUT_MS = 5_000
REST_S = 60
LIVE_S = 30
"""Seconds in which a publish must become live."""


def memory_figures(folder: Path, base: str) -> dict[str, Figure]:
    """Return the memory after all publishes, and the most meanwhile, against that after three."""
    settled, peak, rested = measure_memory(folder, base)
    return {
        f"rss_after_{PUBLISHES}_publishes_vs_{SETTLED}": Figure.reported([rested / settled], ""),
        f"rss_peak_vs_{SETTLED}": Figure.reported([peak / settled], ""),
        f"rss_after_{SETTLED}_publishes_mb": Figure.reported([settled / 1e6], "MB"),
    }


def measure_memory(folder: Path, base: str) -> tuple[int, int, int]:
    """Return bytes: after three publishes, at the peak, and a minute after the last publish."""
    from kirana.graphs.serving import graph

    (folder / "models").mkdir(parents=True)
    (folder / "catalog.yaml").write_text(catalog_text(1) + inferflow_text())
    settings = local_settings(folder, {"replicas": 1})
    publisher = catalog_backend(settings)
    write_mlp(folder / "models/mlp.onnx", hidden=HIDDEN)
    publisher.publish()
    body = json.dumps({"context": {"product_id": [str(n) for n in range(100)]}}).encode()
    with application(base, "soak", graph(settings)) as front:
        (direct,) = endpoints(front, 1)
        replica = _replica("soak")
        headers = {"x-kirana-timeout-ms": str(TIMEOUT_MS)}
        target = Target(f"{direct}/v1/infer/ranker", body, headers=headers)
        with Attack([target], REQUESTS_PER_S, 3_600):
            settled = peak = 0
            for number in range(1, PUBLISHES + 1):
                write_mlp(folder / "models/mlp.onnx", hidden=HIDDEN, seed=number)
                revision = publisher.publish().revision.number
                _wait_until_live(direct, revision)
                peak = max(peak, replica.memory_info().rss)
                if number == SETTLED:
                    settled = replica.memory_info().rss
            rested_at = time.monotonic() + REST_S
            while time.monotonic() < rested_at:
                peak = max(peak, replica.memory_info().rss)
                time.sleep(1)
            rested = replica.memory_info().rss
    publisher.close()
    shutil.rmtree(folder)
    return settled, peak, rested


def _replica(application_name: str) -> psutil.Process:
    """Return the process of the application's ingress."""
    title = f"ray::ServeReplica:{application_name}:Ingress"
    return next(
        process
        for process in psutil.process_iter()
        if title in " ".join(process.cmdline() if process.is_running() else ())
    )


def _wait_until_live(url: str, revision: int) -> None:
    """Wait until a replica is on a revision. Raise `RuntimeError` if that takes too long."""
    deadline = time.monotonic() + LIVE_S
    while time.monotonic() < deadline:
        catalog = httpx.get(f"{url}/healthz").json()["parts"]["catalog"]
        if catalog["revision"] >= revision:
            return
        time.sleep(0.05)
    raise RuntimeError(f"revision {revision} is not live after {LIVE_S} s")
