"""Ray and Serve for the benchmarks, and applications that are served there."""

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
ATTEMPTS = 100


@contextmanager
def ray_cluster() -> Iterator[str]:
    """Start Ray and Serve as `kirana up` does, and yield the URL of Serve's HTTP proxy."""
    # Replicas must be able to import this package.
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path.cwd()), os.environ.get("PYTHONPATH", "")])
    port, metrics_port = free_ports(2)
    short_folder = Path(tempfile.mkdtemp(prefix="kb-"))
    with cluster("127.0.0.1", port, metrics_port, short_folder, lambda: None):
        yield f"http://127.0.0.1:{port}"


@contextmanager
def application(base: str, name: str, graph: object) -> Iterator[str]:
    """Serve a graph at the path `/name` until the block ends, and yield its URL."""
    from ray import serve

    serve.run(graph, name=name, route_prefix=f"/{name}")  # type: ignore[arg-type]
    try:
        yield f"{base}/{name}"
    finally:
        serve.delete(name)


def endpoints(url: str, count: int = REPLICAS) -> list[str]:
    """Wait until `count` replicas have announced their direct ports, and return the URLs.

    Raise `RuntimeError` if that takes more than about ten seconds.
    """
    for _ in range(ATTEMPTS):
        announced = httpx.get(f"{url}/v1/endpoints").json()["endpoints"]
        if len(announced) >= count:
            return [endpoint["url"] for endpoint in announced]
        time.sleep(0.1)
    raise RuntimeError(f"{len(announced)} of {count} replicas have announced a port")
