"""Clients that write and read the keys of a seed, and record what they see."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping
from itertools import count
from typing import Any, Literal

import httpx

from tests.chaos.history import History, Read, Write

GROUP, FEATURE = "product.stats", "stats.clicks"
KEYS = 8
"""Keys that are written all the time."""

QUIET_KEYS = 200
"""Keys that are written twice: before the faults, and at some time during them.

After the second write they are only read, so a lost write or an old copy is not covered by a later
write.
"""

SECOND_WRITES_S = 8.0
"""The time within which all of them are written again."""

WRITERS, READERS = 2, 4
PAUSE_S = (0.005, 0.06)
"""The shortest and the longest pause of a client between two calls."""

TIMEOUT_S = 15.0


class EventTimes:
    """Event times in Unix milliseconds, no two of which are equal."""

    def __init__(self) -> None:
        self._last = 0

    def next(self) -> int:
        self._last = max(self._last + 1, time.time_ns() // 1_000_000)
        return self._last


class Clients:
    """Writers and readers of one seed. `doors` are URLs of replicas, by name."""

    def __init__(self, seed: int, doors: Mapping[str, str], history: History) -> None:
        self.doors = dict(doors)
        self._rng = random.Random(f"clients of {seed}")
        self._keys = [f"{seed}-{number}" for number in range(KEYS)]
        self._quiet_keys = [f"{seed}-quiet-{number}" for number in range(QUIET_KEYS)]
        self._history = history
        self._values = count(1)
        self._times = EventTimes()
        self._client = httpx.AsyncClient(timeout=TIMEOUT_S)

    async def run(self, until: asyncio.Event) -> None:
        """Send requests until the event is set."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._write_quiet_keys())
            for _ in range(WRITERS):
                group.create_task(self._repeat(self.write, until))
            for _ in range(READERS):
                group.create_task(self._repeat(self.read, until))

    async def _repeat(self, call: Any, until: asyncio.Event) -> None:
        while not until.is_set():
            await call()
            await asyncio.sleep(self._rng.uniform(*PAUSE_S))

    def _door(self) -> tuple[str, str]:
        return self._rng.choice(sorted(self.doors.items()))

    async def _write_quiet_keys(self) -> None:
        """Write the quiet keys, read them through each door, and write them once more."""
        began = time.monotonic()
        await self._write(self._quiet_keys, next(self._values))
        for name, url in self.doors.items():
            await self._read(name, url, self._quiet_keys)
        times = sorted(self._rng.uniform(0, SECOND_WRITES_S) for _ in self._quiet_keys)
        for key, at_s in zip(self._quiet_keys, times, strict=True):
            await asyncio.sleep(began + at_s - time.monotonic())
            await self._write([key], next(self._values))

    async def write(self) -> None:
        """Write a value to some keys, or delete them."""
        keys = self._rng.sample(self._keys, self._rng.randint(1, 3))
        await self._write(keys, None if self._rng.random() < 0.15 else next(self._values))

    async def _write(self, keys: list[str], value: int | None) -> None:
        name, url = self._door()
        event_time = self._times.next()
        body: dict[str, Any] = {
            "group": GROUP,
            "keys": {"product_id": keys},
            "event_time": event_time,
        }
        if value is not None:
            body["columns"] = {"clicks": [value] * len(keys), "ctr": [0.0] * len(keys)}
        path = "/v1/features/delete" if value is None else "/v1/features/put"
        outcome: Literal["acknowledged", "unknown"] = "unknown"
        began = time.monotonic()
        try:
            reply = await self._client.post(url + path, json=body)
            if reply.status_code == 200:
                outcome = "acknowledged"
        except httpx.HTTPError:
            pass
        write = Write(keys, value, event_time, began, time.monotonic(), outcome, name)
        self._history.events.append(write)

    async def read(self) -> None:
        """Read some keys."""
        known = self._rng.choice((self._keys, self._quiet_keys))
        keys = self._rng.sample(known, self._rng.randint(1, KEYS))
        await self._read(*self._door(), keys)

    async def read_all(self) -> None:
        """Read all keys through each door, as the final reads."""
        for name, url in self.doors.items():
            await self._read(name, url, self._keys + self._quiet_keys, final=True)

    async def _read(self, name: str, url: str, keys: list[str], *, final: bool = False) -> None:
        body = {
            "entity": "product",
            "keys": {"product_id": keys},
            "features": [FEATURE],
            "provenance": True,
        }
        values: list[int | None] = []
        status: list[str] = []
        tier: list[str | None] = []
        error = ""
        began = time.monotonic()
        try:
            reply = await self._client.post(f"{url}/v1/features/get", json=body)
            reply.raise_for_status()
            answer = reply.json()
            status = answer["status"]["stats"]
            tier = answer["tier"]["stats"]
            values = [
                row[0] if state == "ok" else None
                for row, state in zip(answer["values"], status, strict=True)
            ]
        except httpx.HTTPError as failure:
            error = repr(failure)
        read = Read(keys, values, status, tier, began, time.monotonic(), name, error, final)
        self._history.events.append(read)

    async def close(self) -> None:
        await self._client.aclose()
