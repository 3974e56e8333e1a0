"""Reads, writes and faults of two processes, interleaved in many random orders."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable
from typing import Any

import pytest
from redis.asyncio import Redis

from kirana.stores import RowBlock, RowKeys
from kirana.stores.hot.base import HotTier
from kirana.stores.memory import MemoryFeatureStore
from kirana.stores.open import open_hot_tier
from kirana.stores.tiered import UNTOLD, TieredFeatureStore
from tests.contract.interleavings import ScheduledDurable, ScheduledHot, Scheduler
from tests.redis_servers import RedisServers
from tests.store_calls import TimeCodec, row, time_of

BOUND_S = 60.0
GROUP, KEYS = "product.g", ("a",)

pytestmark = pytest.mark.redis


class Process:
    """A process with a tiered store. A killed one is replaced by a new one with the next name."""

    def __init__(self, hot: HotTier, durable: MemoryFeatureStore, scheduler: Scheduler) -> None:
        self._of_all = hot, durable, scheduler
        self._scheduler = scheduler
        self._number = 0
        self.restart()

    def restart(self) -> None:
        hot, durable, scheduler = self._of_all
        self._number += 1
        self.name = f"{id(self)}.{self._number}"
        self.hot = ScheduledHot(hot, scheduler, self.name)
        self.store = TieredFeatureStore(
            ScheduledDurable(durable, scheduler, self.name),
            self.hot,
            ttl_s=3_600,
            bound_s=BOUND_S,
            clock=lambda: scheduler.now,
        )


class Shop:
    """Two processes over one Redis and one durable store, and what was acknowledged and seen.

    `strict_from` is the time from which no copy may be older than an acknowledged write: half the
    bound after the last write that the hot tier could not be told of, or the last restored copy.
    """

    def __init__(self, hot: HotTier, client: Redis) -> None:
        self.scheduler = Scheduler()
        self.durable = MemoryFeatureStore()
        self.processes = [Process(hot, self.durable, self.scheduler) for _ in range(2)]
        self.client: Any = client
        self.acknowledged = dict.fromkeys(KEYS, 0)
        self.strict_from = 0.0
        self.time = 0
        self._tasks: list[asyncio.Task[None]] = []
        self._saved: dict[bytes, bytes] = {}

    def start(self, call: Awaitable[None]) -> None:
        self._tasks.append(asyncio.ensure_future(call))

    async def write(self, process: Process, key: str, time: int) -> None:
        metrics = process.store._metrics
        untold = metrics.counts(UNTOLD)
        await process.store.write(RowBlock.of(GROUP, TimeCodec(), [key], [row(time)]))
        if metrics.counts(UNTOLD) != untold:
            self.strict_from = self.scheduler.now + BOUND_S / 2
        self.acknowledged[key] = max(self.acknowledged[key], time)

    async def read(self, process: Process, key: str) -> None:
        expected, began = self.acknowledged[key], self.scheduler.now
        (rows,) = await process.store.read([RowKeys(GROUP, [key])])
        assert rows.unavailable is None
        if began >= self.strict_from:
            assert time_of(rows.values[0]) >= expected

    async def entries(self) -> dict[bytes, bytes]:
        keys = await self.client.keys("hot:*")
        return {key: await self.client.get(key) for key in keys}

    async def advance(self, seconds: int) -> None:
        """Let time pass, and remove the marks that have expired."""
        self.scheduler.now += seconds
        for key, entry in (await self.entries()).items():
            name = key.decode().rpartition(":")[2]
            marked_at = max(process.hot.marked.get(name, 0) for process in self.processes)
            if entry.startswith(b"\0P") and marked_at + BOUND_S <= self.scheduler.now:
                await self.client.delete(key)

    async def evict(self, key: str) -> None:
        """Remove a copy or a lease, as Redis does when its memory is full."""
        name = f"hot:{GROUP}:{key}"
        entry = await self.client.get(name)
        if entry is not None and not entry.startswith(b"\0P"):
            await self.client.delete(name)

    async def save(self) -> None:
        self._saved = await self.entries()

    def forget(self) -> None:
        """Forget the entries of the last `save`."""
        self._saved = {}

    async def lose_marks(self) -> None:
        """Remove all marks and leases, as Redis may if its memory is full."""
        for key, entry in (await self.entries()).items():
            if entry.startswith(b"\0"):
                await self.client.delete(key)

    async def restore(self) -> None:
        """Restart Redis with the entries of the last `save`."""
        for key in await self.client.keys("hot:*"):
            await self.client.delete(key)
        for key, entry in self._saved.items():
            await self.client.set(key, entry)
        identity = f"restored at {self.scheduler.now} {len(self._tasks)}"
        for process in self.processes:
            process.hot.identity = identity
        self.strict_from = self.scheduler.now + BOUND_S / 2

    async def kill(self, process: Process) -> None:
        await self.scheduler.kill(process.name)
        identity, marked = process.hot.identity, process.hot.marked
        process.restart()
        process.hot.identity, process.hot.marked = identity, marked

    async def finish(self) -> None:
        """Let all calls end. Then each process must read what is in the durable store."""
        for process in self.processes:
            process.hot.away = False
        await self.scheduler.finish()
        await self.advance(int(2 * BOUND_S))
        (stored,) = await self.durable.read([RowKeys(GROUP, KEYS)])
        for key, value in zip(KEYS, stored.values, strict=True):
            self.acknowledged[key] = time_of(value)
            for process in self.processes:
                self.start(self.read(process, key))
                await self.scheduler.finish()
        for task in self._tasks:
            if task.done():
                task.result()
        # What is left belongs to killed processes.
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()


EXAMPLES = 3_000
STEPS = 40

COMMON = {
    "go on": 12.0,
    "write": 3.0,
    "read": 4.0,
    "write older": 0.5,
    "evict": 0.5,
    "advance": 1.0,
}
"""How often each step occurs."""

FAULTS = ("away", "away", "kill", "kill", "restore", "restart", "lose marks")
"""Half of the examples have one kind of fault."""


def steps_of(seed: int) -> list[tuple[Any, ...]]:
    """Return the steps of an example."""
    rng = random.Random(seed)
    weights = dict(COMMON)
    if rng.random() < 0.5:
        fault = rng.choice(FAULTS)
        weights[fault] = 1.0
        if fault == "restore":
            weights["save"] = 1.0
    names = rng.choices(list(weights), list(weights.values()), k=STEPS)
    return [(name, *_values_of(name, rng)) for name in names]


def _values_of(name: str, rng: random.Random) -> tuple[Any, ...]:
    process, key = rng.randrange(2), rng.choice(KEYS)
    match name:
        case "write" | "write older" | "read":
            return process, key
        case "go on":
            return rng.randrange(6), rng.randint(1, 6)
        case "advance":
            return (rng.choice((1, 16, 31, 61)),)
        case "evict":
            return (key,)
        case "away":
            return process, rng.random() < 0.4, rng.random() < 0.5
        case "kill":
            return (process,)
    return ()


async def run(url: str, steps: list[tuple[Any, ...]]) -> None:
    hot, client = open_hot_tier(url), Redis.from_url(url)
    await client.flushdb()
    shop = Shop(hot, client)
    for process in shop.processes:
        shop.start(shop.read(process, KEYS[0]))
        await shop.scheduler.finish()
    try:
        for action, *values in steps:
            await act(shop, action, values)
        await shop.finish()
    finally:
        await hot.close()
        await client.aclose()


async def act(shop: Shop, action: str, values: list[Any]) -> None:
    match action, values:
        case "write", [process, key]:
            shop.time += 2
            shop.start(shop.write(shop.processes[process], key, shop.time))
        case "write older", [process, key]:
            shop.start(shop.write(shop.processes[process], key, max(shop.time - 1, 0)))
        case "read", [process, key]:
            shop.start(shop.read(shop.processes[process], key))
        case "go on", [number, steps]:
            for _ in range(steps):
                if shop.scheduler.waiting():
                    await shop.scheduler.release(number % shop.scheduler.waiting())
        case "advance", [seconds]:
            await shop.advance(seconds)
        case "evict", [key]:
            await shop.evict(key)
        case "away", [process, away, lost]:
            shop.processes[process].hot.away = away
            shop.processes[process].hot.was_away |= away
            shop.processes[process].hot.lost = lost
        case "kill", [process] if not shop.processes[process].hot.was_away:
            # See `kirana.stores.tiered` on a writer that is killed and could not reach Redis.
            await shop.kill(shop.processes[process])
        case "save", _:
            await shop.save()
        case "restore", _:
            await shop.restore()
        case "restart", _:
            shop.forget()
            await shop.restore()
        case "lose marks", _:
            await shop.lose_marks()
    await shop.scheduler.settle()


async def run_all(url: str) -> None:
    for seed in range(EXAMPLES):
        try:
            await run(url, steps_of(seed))
        except AssertionError as error:
            error.add_note(f"the seed is {seed}")
            raise


def test_no_copy_is_older_than_an_acknowledged_write(servers: RedisServers) -> None:
    asyncio.run(run_all(servers.single))
