"""Features in a durable store, with copies in a hot tier that answer most reads.

The durable store has the truth: a write is acknowledged when it is there. A read takes copies from
the hot tier, reads the other rows from the durable store, and then stores copies of them. How
writes keep the copies right is described in `kirana.stores.hot.base`.

If the hot tier can't be told of a write, a new generation begins before the write is acknowledged
(see `kirana.stores.hot.generations`). Other processes use it at the latest after half of the bound.

One case is left open. A writer that can't reach Redis is killed between its durable write and the
new generation, and another process that can reach Redis stores a copy of the old row just before.
Such a write was not acknowledged. The old copy stays until its TTL ends.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from kirana.breaker import Breaker
from kirana.codecs.rows import Tier
from kirana.errors import Unavailable
from kirana.loop import retrieve_error
from kirana.stores.base import PAGE_ROWS, FeatureStore
from kirana.stores.hot.base import HotRows, HotTier, new_token
from kirana.stores.hot.generations import Generations
from kirana.stores.rows import RowBlock, RowKeys, StoredRows, WalkPage, Written

T = TypeVar("T")

TTL_JITTER = 0.2
"""The TTL of a copy is shorter than the setting by a random share, at most this one.

Otherwise copies that were stored together would all expire together.
"""

MAX_FILLING_ROWS = 100_000
"""How many rows may wait to be copied. The copies of more rows are left out."""


@dataclass(slots=True)
class Counts:
    """What a tiered store has done: rows by where they came from, copies, and failures."""

    hot: int = 0
    durable: int = 0
    unreachable: int = 0
    """Rows read from the durable store because the hot tier did not answer."""
    filled: int = 0
    not_filled: int = 0
    """Copies that were left out: a write came first, or another reader was faster."""
    not_told: int = 0
    """Writes that the hot tier could not be told of."""


class TieredFeatureStore:
    """A `FeatureStore` with a hot tier in front.

    A copy lives for at most `ttl_s`. `bound_s` is how long a copy may answer reads after a fault
    although a write has replaced its row.
    """

    embedded = False

    def __init__(
        self,
        durable: FeatureStore,
        hot: HotTier,
        *,
        ttl_s: float,
        bound_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.forgets = durable.forgets
        self._durable = durable
        self._hot = hot
        self._ttl_ms = int(ttl_s * 1_000)
        self._mark_s = bound_s
        self._clock = clock
        self._generations = Generations(durable, hot, bound_s, clock=clock)
        self._breaker = Breaker("the durable store")
        self._tasks: set[asyncio.Task[Any]] = set()
        self._filling_rows = 0
        self.counts = Counts()

    async def read(self, wanted: Sequence[RowKeys]) -> list[StoredRows]:
        """Return copies, and rows of the durable store where there is no copy.

        Rows that the hot tier can't answer are read from the durable store. They are unavailable
        only if they can't be read there.
        """
        try:
            generation = await self._generations.current()
        except Unavailable:
            # No copy can be trusted.
            return await self._durable.read(wanted)
        copies = await self._hot.read(wanted, generation)
        if not any(rows.missing or rows.unreachable for rows in copies):
            self.counts.hot += sum(len(rows.values) for rows in copies)
            return [StoredRows(rows.values, tier=Tier.HOT) for rows in copies]
        return await self._complete(wanted, copies, generation)

    async def _complete(
        self, wanted: Sequence[RowKeys], copies: Sequence[HotRows], generation: bytes
    ) -> list[StoredRows]:
        """Read the rows without a copy from the durable store, and store copies of them."""
        missing = [_at(rows, found.missing) for rows, found in zip(wanted, copies, strict=True)]
        token = new_token()
        leased = any(rows.keys for rows in missing)
        if leased:
            try:
                await self._hot.lease(_not_empty(missing), token, generation)
            except Unavailable:
                leased = False
        positions = [sorted(found.missing + found.unreachable) for found in copies]
        reads = [_at(rows, own) for rows, own in zip(wanted, positions, strict=True)]
        answers = iter(await self._durable.read(_not_empty(reads)))
        results: list[StoredRows] = []
        filled: list[tuple[RowKeys, list[bytes | None]]] = []
        for rows, found, own in zip(reads, copies, positions, strict=True):
            answer = next(answers) if rows.keys else StoredRows([])
            results.append(_merged(found, own, answer))
            self.counts.hot += len(found.values) - len(own)
            self.counts.unreachable += len(found.unreachable)
            self.counts.durable += len(own)
            left_out = set(found.unreachable)
            if answer.unavailable is not None:
                left_out |= {own[position] for position in answer.unavailable.tolist()}
            kept = [i for i, position in enumerate(own) if position not in left_out]
            if kept:
                filled.append((_at(rows, kept), [answer.values[i] for i in kept]))
        if leased:
            self._fill_soon(filled, token, generation)
        return results

    def _fill_soon(
        self,
        filled: Sequence[tuple[RowKeys, list[bytes | None]]],
        token: bytes,
        generation: bytes,
    ) -> None:
        """Store copies of rows of the durable store, without waiting for it."""
        wanted, values = [rows for rows, _ in filled], [values for _, values in filled]
        count = sum(map(len, values))
        if not count or self._filling_rows + count > MAX_FILLING_ROWS:
            self.counts.not_filled += count
            return
        self._filling_rows += count
        self._start(self._fill(wanted, values, count, token, generation))

    async def _fill(
        self,
        wanted: Sequence[RowKeys],
        values: Sequence[Sequence[bytes | None]],
        count: int,
        token: bytes,
        generation: bytes,
    ) -> None:
        shortest = int(self._ttl_ms * (1 - TTL_JITTER))
        ttl_ms = [[random.randint(shortest, self._ttl_ms) for _ in group] for group in values]
        filled = 0
        try:
            filled = await self._hot.fill(wanted, values, ttl_ms, token, generation)
        except Unavailable:
            pass
        finally:
            self._filling_rows -= count
            self.counts.filled += filled
            self.counts.not_filled += count - filled

    async def write(self, block: RowBlock) -> Written:
        """Write to the durable store, and remove the copies of the rows."""
        return await self._through(_keys_of(block), lambda: self._durable.write(block))

    async def load(self, block: RowBlock, *, guarded: bool = True) -> Written:
        """Load into the durable store, and remove the copies of the rows."""
        return await self._through(
            _keys_of(block), lambda: self._durable.load(block, guarded=guarded)
        )

    async def remove(self, rows: RowKeys) -> int:
        """Remove rows from the durable store, and their copies."""
        return await self._through(rows, lambda: self._durable.remove(rows))

    async def _through(self, rows: RowKeys, write: Callable[[], Awaitable[T]]) -> T:
        """Change rows with `write`, so that no copy is older than the change.

        If the caller is cancelled, the change goes on: the copies must be removed in any case.
        """
        if not rows.keys:
            return await write()
        return await asyncio.shield(self._start(self._change(rows, write)))

    async def _change(self, rows: RowKeys, write: Callable[[], Awaitable[T]]) -> T:
        # While the durable store is away, writes must not remove copies: they are all there is.
        self._breaker.check()
        token = new_token()
        marked_at = self._clock()
        marked = await self._told(self._hot.mark(rows, token, int(self._mark_s * 1_000)))
        if not marked:
            # This process may be killed right after the write.
            await self._generations.begin()
        try:
            result = await write()
        except Unavailable:
            # The write may still arrive. Until the marks expire, no copies are stored.
            self._breaker.failed()
            raise
        self._breaker.succeeded()
        in_time = self._clock() < marked_at + self._mark_s / 2
        if not await self._told(self._hot.unmark(rows, token)) and not (marked and in_time):
            self.counts.not_told += 1
            await self._generations.begin()
        return result

    @staticmethod
    async def _told(call: Awaitable[None]) -> bool:
        """Return whether the hot tier did what it was told."""
        try:
            await call
        except Unavailable:
            return False
        return True

    def _start(self, call: Any) -> asyncio.Task[Any]:
        task = asyncio.create_task(call)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(retrieve_error)
        return task

    async def walk(self, entity: str, cursor: str = "", *, limit: int = PAGE_ROWS) -> WalkPage:
        """Return a page of rows of the durable store."""
        return await self._durable.walk(entity, cursor, limit=limit)

    async def ping(self) -> bool:
        """Return whether the durable store answers. Ask the hot tier, too, for its health."""
        answers, _ = await asyncio.gather(
            self._durable.ping(), self._hot.servers(), return_exceptions=True
        )
        return answers is True

    def health(self) -> dict[str, Any]:
        """Return the state of the durable store, and under `hot` that of the hot tier."""
        counts = {name: getattr(self.counts, name) for name in self.counts.__slots__}
        hot = {**self._hot.health(), "rows": counts, "generations": self._generations.begun}
        if self._generations.reason:
            hot["reason"] = self._generations.reason
        return {**self._durable.health(), "hot": hot}

    async def settle(self) -> None:
        """Wait until the writes and copies that are under way have ended."""
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def close(self) -> None:
        """Finish what is under way, and close both stores. No-op if already closed."""
        await self.settle()
        await self._hot.close()
        await self._durable.close()


def _keys_of(block: RowBlock) -> RowKeys:
    return RowKeys(block.group, list(dict.fromkeys(key.decode() for key in block.key_list())))


def _at(rows: RowKeys, positions: Sequence[int]) -> RowKeys:
    """Return the keys at these positions."""
    if len(positions) == len(rows.keys):
        return rows
    return RowKeys(rows.group, [rows.keys[position] for position in positions])


def _not_empty(wanted: Sequence[RowKeys]) -> list[RowKeys]:
    return [rows for rows in wanted if rows.keys]


def _merged(copies: HotRows, positions: Sequence[int], answer: StoredRows) -> StoredRows:
    """Return copies, and at these positions the rows of an answer of the durable store."""
    if not positions:
        return StoredRows(copies.values, tier=Tier.HOT)
    if len(positions) == len(copies.values):
        return answer
    values, at = list(copies.values), np.asarray(positions, dtype=np.intp)
    tier = np.full(len(values), Tier.HOT, dtype=np.uint8)
    tier[at] = answer.tier
    for position, value in zip(positions, answer.values, strict=True):
        values[position] = value
    unavailable = None if answer.unavailable is None else at[answer.unavailable]
    return StoredRows(values, unavailable, answer.reason, tier)
