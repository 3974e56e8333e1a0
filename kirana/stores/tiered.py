"""Features in a durable store, with copies in a hot tier that answer most reads.

The durable store has the truth: a write is acknowledged when it is there. A read takes copies from
the hot tier, reads the other rows from the durable store, and then stores copies of them. How
writes keep the copies right is described in `kirana.stores.hot.base`.

If the hot tier can't be told of a write, a new generation begins before the write is acknowledged
(see `kirana.stores.hot.generations`). Other processes use it at the latest after half of the bound.
While a process can't reach the durable store, it uses the last generation that it knows.

One case is left open. A writer that can't reach Redis is killed between its durable write and the
new generation, and another process that can reach Redis stores a copy of the old row just before.
Such a write was not acknowledged. The old copy stays until its TTL ends.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from kirana.codecs.rows import Tier
from kirana.errors import Unavailable
from kirana.loop import retrieve_error
from kirana.metrics import Counter, Metrics
from kirana.stores.base import PAGE_ROWS, FeatureStore
from kirana.stores.durability import Durability
from kirana.stores.hot.base import HotRows, HotTier, new_token
from kirana.stores.hot.generations import Generations
from kirana.stores.rows import (
    RowBlock,
    RowKeys,
    StoredRows,
    WalkPage,
    Written,
    stored_bytes,
)

T = TypeVar("T")

TTL_JITTER = 0.2
"""The TTL of a copy is shorter than the setting by a random share, at most this one.

Otherwise copies that were stored together would all expire together.
"""

MAX_FILLING_BYTES = 64 << 20
"""How many bytes of rows may wait to be copied. The copies of more rows are left out."""


ROWS = Counter(
    "kirana_hot_tier_rows",
    "Rows that were read from the hot and the durable tier, and copies of rows.",
    ("outcome",),
)
UNTOLD = Counter("kirana_hot_tier_untold", "Writes that the hot tier could not be told of.", ())
GENERATIONS = Counter("kirana_hot_tier_generations", "Generations of copies that began here.", ())

OUTCOMES = ("hot", "durable", "unreachable", "filled", "not_filled")
"""The values of the tag of `ROWS`; `kirana.edge.replies.HotRowsReport` describes them."""


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
        metrics: Metrics | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.forgets = durable.forgets
        self._durable = durable
        self._hot = hot
        self._ttl_ms = int(ttl_s * 1_000)
        self._mark_ms = int(bound_s * 1_000)
        self._generations = Generations(
            durable, hot, bound_s, on_begin=lambda: self._metrics.count(GENERATIONS), clock=clock
        )
        self._tasks: set[asyncio.Task[Any]] = set()
        self._asking: asyncio.Task[Any] | None = None
        """The last question of `ping` to the hot tier."""
        self._filling_bytes = 0
        self._metrics = metrics or Metrics()

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
            self._count("hot", sum(len(rows.values) for rows in copies))
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
            self._count("hot", len(found.values) - len(own))
            self._count("unreachable", len(found.unreachable))
            self._count("durable", len(found.missing))
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
        count, size = sum(map(len, values)), sum(map(stored_bytes, values))
        if not count or self._filling_bytes + size > MAX_FILLING_BYTES:
            self._count("not_filled", count)
            return
        self._filling_bytes += size
        filling = self._start(self._fill(wanted, values, count, token, generation))

        def end(_: asyncio.Task[Any]) -> None:
            self._filling_bytes -= size

        filling.add_done_callback(end)

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
            self._count("filled", filled)
            self._count("not_filled", count - filled)

    def _count(self, outcome: str, rows: int) -> None:
        self._metrics.add(ROWS, rows, outcome)

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
        await self._require_durable()
        token = new_token()
        if not await self._told(self._hot.mark(rows, token, self._mark_ms)):
            # This process may be killed right after the write.
            await self._generations.begin()
        # If the write fails, it may still arrive. Until the marks expire, no copies are stored.
        result = await write()
        if not await self._told(self._hot.unmark(rows, token)):
            # The mark may be gone, too: Redis may have restarted, or evicted it.
            self._metrics.count(UNTOLD)
            await self._generations.begin()
        return result

    async def _require_durable(self) -> None:
        """Raise `Unavailable` if the durable store does not answer.

        Without this check, each write that fails would remove copies, which are all there is.
        """
        breaker = self._durable.health().get("breaker")
        if breaker and breaker["state"] == "open" and not await self._durable.ping():
            raise Unavailable(
                f"{self._durable.health()['store']} did not answer a moment ago: calls are refused "
                "until it answers"
            )

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
        """Return whether the durable store answers. The hot tier is asked, too, for its health."""
        if self._asking is None or self._asking.done():
            self._asking = self._start(self._hot.servers())
        return await self._durable.ping()

    async def durability(self) -> Durability:
        """Return what an acknowledged write is worth in the durable store."""
        return await self._durable.durability()

    def health(self) -> dict[str, Any]:
        """Return the state of the durable store, and under `hot` that of the hot tier."""
        hot = {
            **self._hot.health(),
            "rows": self.row_counts(),
            "untold": self._metrics.counts(UNTOLD).get((), 0),
            "generations": self._metrics.counts(GENERATIONS).get((), 0),
        }
        if self._generations.reason:
            hot["reason"] = self._generations.reason
        return {**self._durable.health(), "hot": hot}

    def row_counts(self) -> dict[str, int]:
        """Return how many rows had each of the `OUTCOMES`."""
        counts = self._metrics.counts(ROWS)
        return {outcome: counts.get((outcome,), 0) for outcome in OUTCOMES}

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
