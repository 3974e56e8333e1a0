"""A scheduler of concurrent calls, and tiers whose calls wait for it.

A call of a tier stops before it does its work, until the scheduler lets it go on. So a test decides
in which order the steps of several processes happen.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from kirana.errors import Unavailable
from kirana.stores import FeatureStore, RowBlock, RowKeys, StoredRows, Written
from kirana.stores.hot.base import HotRows, HotTier

T = TypeVar("T")


class Scheduler:
    """Lets calls go on, one step at a time. `now` is the time in seconds that processes see."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self._waiting: list[tuple[str, asyncio.Future[None]]] = []
        self._working = 0

    async def step(self, process: str, work: Callable[[], Awaitable[T]]) -> T:
        """Do work of a process, with a stop before it."""
        await self._stop(process)
        self._working += 1
        try:
            return await work()
        finally:
            self._working -= 1

    async def _stop(self, process: str) -> None:
        waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((process, waiting))
        await waiting

    async def settle(self) -> None:
        """Wait until each call is at a stop."""
        quiet = 0
        while quiet < 5:
            await asyncio.sleep(0)
            quiet = 0 if self._working else quiet + 1

    def waiting(self) -> int:
        """Return how many calls are at a stop."""
        return len(self._waiting)

    async def release(self, number: int) -> None:
        """Let one of the calls go on to its next stop."""
        _, waiting = self._waiting.pop(number)
        waiting.set_result(None)
        await self.settle()

    async def kill(self, process: str) -> None:
        """Never let the calls of a process go on."""
        self._waiting = [entry for entry in self._waiting if entry[0] != process]

    async def finish(self) -> None:
        """Let all calls go on until they have ended."""
        await self.settle()
        while self._waiting:
            await self.release(0)


class ScheduledHot:
    """The hot tier as one process sees it. While it is `away`, calls fail.

    `lost` decides whether a failed call has done its work.
    """

    name = "hot"

    def __init__(self, hot: HotTier, scheduler: Scheduler, process: str) -> None:
        self._hot = hot
        self._scheduler = scheduler
        self._process = process
        self.away = self.was_away = False
        self.lost = True
        self.identity = "first"
        self.marked: dict[str, float] = {}
        """When each key was last marked, by `Scheduler.now`."""

    async def _call(self, work: Callable[[], Awaitable[T]]) -> T:
        async def try_to_work() -> T:
            if not self.away:
                return await work()
            if not self.lost:
                await work()
            raise Unavailable("the hot tier is away")

        return await self._scheduler.step(self._process, try_to_work)

    async def read(self, wanted: Sequence[RowKeys], generation: bytes) -> list[HotRows]:
        try:
            return await self._call(lambda: self._hot.read(wanted, generation))
        except Unavailable:
            return [HotRows([None] * len(r.keys), [], list(range(len(r.keys)))) for r in wanted]

    async def lease(self, wanted: Sequence[RowKeys], token: bytes, generation: bytes) -> None:
        await self._call(lambda: self._hot.lease(wanted, token, generation))

    async def fill(self, *arguments: Any) -> int:
        return await self._call(lambda: self._hot.fill(*arguments))

    async def mark(self, rows: RowKeys, token: bytes, life_ms: int) -> None:
        async def mark() -> None:
            await self._hot.mark(rows, token, life_ms)
            self.marked |= dict.fromkeys(rows.keys, self._scheduler.now)

        await self._call(mark)

    async def unmark(self, rows: RowKeys, token: bytes) -> None:
        await self._call(lambda: self._hot.unmark(rows, token))

    async def servers(self) -> list[str]:
        async def identities() -> list[str]:
            return [self.identity]

        return await self._call(identities)

    def health(self) -> dict[str, Any]:
        return {}

    async def close(self) -> None:
        pass


class ScheduledDurable:
    """The durable store as one process sees it."""

    embedded = False

    def __init__(self, durable: FeatureStore, scheduler: Scheduler, process: str) -> None:
        self._durable = durable
        self._scheduler = scheduler
        self._process = process

    async def read(self, wanted: Sequence[RowKeys]) -> list[StoredRows]:
        return await self._scheduler.step(self._process, lambda: self._durable.read(wanted))

    async def write(self, block: RowBlock) -> Written:
        return await self._scheduler.step(self._process, lambda: self._durable.write(block))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._durable, name)
