"""Ray and Serve for the benchmarks, and the applications in it."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from kirana.cli.cluster import cluster
from kirana.serving.environment import free_ports

REPLICAS = 2
WAITED = 100


@contextmanager
def ray_cluster() -> Iterator[str]:
    """Start Ray and Serve as `kirana up` does; yield where HTTP will be."""
    # replicas must find this package
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path.cwd()), os.environ.get("PYTHONPATH", "")])
    port, metrics_port = free_ports(2)
    short = Path(tempfile.mkdtemp(prefix="kb-"))
    with cluster("127.0.0.1", port, metrics_port, short, lambda: None):
        yield f"http://127.0.0.1:{port}"


@contextmanager
def application(base: str, name: str, graph: object) -> Iterator[str]:
    """Serve a graph under the path of its name, as long as the block lasts; yields its URL."""
    from ray import serve

    serve.run(graph, name=name, route_prefix=f"/{name}")  # type: ignore[arg-type]
    try:
        yield f"{base}/{name}"
    finally:
        serve.delete(name)


def endpoints(url: str, count: int = REPLICAS) -> list[str]:
    """Return the direct ports of so many replicas, once all of them are announced."""
    for _ in range(WAITED):
        found = httpx.get(f"{url}/v1/endpoints").json()["endpoints"]
        if len(found) >= count:
            return [each["url"] for each in found]
        time.sleep(0.1)
    raise RuntimeError(f"{len(found)} of {count} replicas have announced a port")
