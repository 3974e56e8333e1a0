"""A Redis server for the benchmarks, on a free port."""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

import redis

from kirana.serving.environment import free_ports


@contextmanager
def redis_server() -> Iterator[str]:
    """Start an empty Redis that writes nothing to disk, and yield its `host:port`."""
    (port,) = free_ports(1)
    with tempfile.TemporaryDirectory(prefix="kb-") as folder:
        command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", folder]
        process = subprocess.Popen(
            [*command, "--save", "", "--appendonly", "no"], stdout=subprocess.DEVNULL
        )
        try:
            with redis.Redis(port=port) as client:
                for _ in range(200):
                    try:
                        client.ping()
                        break
                    except redis.ConnectionError:
                        time.sleep(0.05)
                else:
                    raise RuntimeError("redis-server did not answer within ten seconds")
            yield f"127.0.0.1:{port}"
        finally:
            process.kill()
            process.wait()


def used_memory(address: str) -> int:
    host, _, port = address.rpartition(":")
    with redis.Redis(host, int(port)) as client:
        return int(client.info("memory")["used_memory"])


def flush(address: str) -> None:
    host, _, port = address.rpartition(":")
    with redis.Redis(host, int(port)) as client:
        client.flushall()
