"""Redis without Kirana: MGET with redis.asyncio and hiredis, and writes by redis-benchmark."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from typing import Any

import redis
from redis.asyncio import Redis

from kirana.clock import MAX_FUTURE_MS
from kirana.stores.redis_script import GUARDED_AT_ONCE, WRITE

RANDOM_KEYS = 1_000_000
EXPIRES_AT_MS = 1_895_000_000_000
"""The expiry of all values, in 2030."""


class RawMget:
    """MGET with a connection pool, without decoding the values."""

    def __init__(self, address: str, keys: Sequence[bytes]) -> None:
        self._client = Redis.from_url(f"redis://{address}")
        self._keys = list(keys)

    async def read(self) -> list[Any]:
        values: list[Any] = await self._client.mget(self._keys)
        return values

    async def close(self) -> None:
        await self._client.aclose()


class SynchronousMget:
    """The same MGET with the synchronous client. `read` blocks the event loop."""

    def __init__(self, address: str, keys: Sequence[bytes]) -> None:
        self._client = redis.Redis.from_url(f"redis://{address}")
        self._keys = list(keys)

    async def read(self) -> list[Any]:
        values: list[Any] = self._client.mget(self._keys)
        return values

    def close(self) -> None:
        self._client.close()


def set_rate(address: str, value_bytes: int, requests: int) -> float:
    """Return the rows per second of `redis-benchmark` for SET with an expiry."""
    key = "f:product.stats:__rand_int__"
    return _benchmark(
        address, requests, ["SET", key, "x" * value_bytes, "PXAT", str(EXPIRES_AT_MS)]
    )


def guard_rate(address: str, value: bytes, rows: int) -> float:
    """Return the rows per second of `redis-benchmark` for the script that compares event times.

    Arguments of redis-benchmark can't hold the bytes of a time that is not far in the future, so
    the script must accept any time.

    Each run of the script writes `GUARDED_AT_ONCE` rows, as in Kirana.
    """
    host, _, port = address.rpartition(":")
    with redis.Redis(host, int(port)) as client:
        sha = client.script_load(WRITE.source.replace(f"+ {MAX_FUTURE_MS}", "+ 1e30"))
    keys = ["f:product.stats:__rand_int__"] * GUARDED_AT_ONCE
    text = value.decode("latin-1")
    arguments = [text, str(EXPIRES_AT_MS)] * GUARDED_AT_ONCE
    words = ["EVALSHA", str(sha), str(GUARDED_AT_ONCE), *keys, "packed", *arguments]
    return GUARDED_AT_ONCE * _benchmark(address, rows // GUARDED_AT_ONCE, words, pipeline=4)


def _benchmark(address: str, requests: int, words: Sequence[str], *, pipeline: int = 32) -> float:
    host, _, port = address.rpartition(":")
    command = ["redis-benchmark", "-h", host, "-p", port, "-P", str(pipeline), "-q"]
    command += ["-r", str(RANDOM_KEYS), "-n", str(requests), *words]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rates = re.findall(r"([0-9.]+) requests per second", output)
    return float(rates[-1])
