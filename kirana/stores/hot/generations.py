"""The generation of the copies in a hot tier, which the durable store keeps.

Each copy in the hot tier carries a generation, and answers reads only of that generation. A new
one thus makes all copies useless at once. It begins when a writer could not remove the copies of
rows that it has written, and when a server of the hot tier is not the same process as before: it
may have lost marks, or have come back with old copies.

A generation is never used again: whichever of several records the durable store keeps, its
generation is newer than all that any process has read.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass

import msgspec

from kirana.errors import Unavailable
from kirana.loop import retrieve_error
from kirana.stores.base import FeatureStore
from kirana.stores.hot.base import TOKEN_BYTES, HotTier
from kirana.stores.rows import RowBlock, RowKeys

RECORD = RowKeys("kirana.#hot", ["generation"])
"""The key of the record in the durable store. No group of a catalog can have this name."""

ENTITY = "kirana"
"""The entity of the record. Stores with one table per entity need a table for it."""

MAX_SERVERS = 1_000
"""How many servers a record has at most. The oldest ones are forgotten first."""

MAX_ATTEMPTS = 10
"""How often a process tries to write the record while other processes do the same."""


@dataclass(frozen=True, slots=True)
class Record:
    """A generation, the time in Unix milliseconds at which it began, and the servers known in it.

    Of two records, the durable store keeps the one with the greater time.
    """

    began_ms: int
    generation: bytes
    servers: tuple[str, ...] = ()


class RecordCodec:
    """The record as a row of the durable store. Implements `RowCodec`."""

    name = "generation"

    def write_order(self, value: bytes) -> tuple[int, bool]:
        """Return the time of a record, and False."""
        return decoded(value).began_ms, False

    def expiry_s(self, value: bytes) -> int:
        """Return 0: a record does not expire."""
        return 0


def decoded(value: bytes | None) -> Record:
    """Return a record from its row. It has no generation if there is no row, or a damaged one."""
    if value is None:
        return _NO_RECORD
    try:
        return msgspec.json.decode(value, type=Record)
    except msgspec.DecodeError:
        return _NO_RECORD


_NO_RECORD = Record(0, b"")
_CODEC = RecordCodec()


class Generations:
    """The current generation, as this process knows it.

    What is known is read again after a quarter of `bound_s`, and not used any more after half of
    it, unless the durable store does not answer. `on_begin` is called when this process has begun a
    generation.
    """

    def __init__(
        self,
        durable: FeatureStore,
        hot: HotTier,
        bound_s: float,
        *,
        on_begin: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._durable = durable
        self._hot = hot
        self._bound_s = bound_s
        self._on_begin = on_begin
        self._clock = clock
        self._known = _NO_RECORD
        self._known_at = -bound_s
        """When the read began that returned `_known`."""
        self._servers: frozenset[str] = frozenset()
        """The servers of the hot tier that answered last."""
        self._reading: asyncio.Task[None] | None = None
        self._beginning = asyncio.Lock()
        self._next: asyncio.Task[None] | None = None
        self.reason = ""
        """Why the last read of the generation has failed; empty if it has not."""

    async def current(self) -> bytes:
        """Return the current generation.

        While the durable store does not answer, return the last one that is known. Raise
        `Unavailable` if none is known.
        """
        while (age_s := self._clock() - self._known_at) >= self._bound_s / 4:
            if self._reading is None:
                self._reading = asyncio.create_task(self._read())
                self._reading.add_done_callback(retrieve_error)
            known = self._known.generation
            if known and (age_s < self._bound_s / 2 or self.reason):
                return known
            try:
                await asyncio.shield(self._reading)
            except Unavailable:
                if not self._known.generation:
                    raise
                return self._known.generation
        return self._known.generation

    async def _read(self) -> None:
        try:
            await self._read_and_compare()
            self.reason = ""
        except Unavailable as error:
            self.reason = error.message
            raise
        finally:
            self._reading = None

    async def _read_and_compare(self) -> None:
        """Read the record. Begin a generation if there is none, or if servers have changed."""
        began = self._clock()
        record = await self._stored()
        servers = self._servers
        with suppress(Unavailable):
            servers = frozenset(await self._hot.servers())
        new = servers.difference(record.servers)
        if self._known.generation == record.generation:
            # A server that was away may have lost marks to one that took its place.
            new |= servers - self._servers
        if record.generation and not new:
            self._servers = servers
            self._know(record, began)
            return
        if new:
            # Until the new generation has begun, no copy can be trusted.
            self._known, self._known_at = _NO_RECORD, -self._bound_s
        await self._begin(servers)
        self._servers = servers

    def _know(self, record: Record, at: float) -> None:
        """Use a record that was read or written at a time, unless a newer one is known."""
        if record.began_ms >= self._known.began_ms:
            self._known, self._known_at = record, at

    async def _stored(self) -> Record:
        (rows,) = await self._durable.read([RECORD])
        if rows.unavailable is not None:
            raise Unavailable(rows.reason)
        return decoded(rows.values[0])

    async def begin(self) -> None:
        """Begin a new generation. The copies of all earlier ones answer no reads any more.

        The generation begins after this call does. Callers that wait at the same time share it.
        Raise `Unavailable` if the durable store does not answer.
        """
        if self._next is None:
            self._next = asyncio.create_task(self._begin_next())
            self._next.add_done_callback(retrieve_error)
        await asyncio.shield(self._next)

    async def _begin_next(self) -> None:
        async with self._beginning:
            # A call from now on needs a later generation.
            self._next = None
            await self._begin(())

    async def _begin(self, servers: Collection[str]) -> None:
        """Write a record with a new generation and more servers."""
        for attempt in range(MAX_ATTEMPTS):
            before = await self._stored()
            # The first byte tells a copy from a lease or a mark.
            token = b"g" + os.urandom(TOKEN_BYTES - 1)
            known = tuple(dict.fromkeys((*before.servers, *servers)))[-MAX_SERVERS:]
            began = self._clock()
            # It is newer than all that is known here, even if the record was lost.
            earliest_ms = max(before.began_ms, self._known.began_ms) + 1
            mine = Record(max(time.time_ns() // 1_000_000, earliest_ms), token, known)
            value = msgspec.json.encode(mine)
            await self._durable.write(RowBlock.of(RECORD.group, _CODEC, RECORD.keys, [value]))
            stored = await self._stored()
            # Another process may have written at the same time. Its generation is as good.
            if stored.generation != before.generation and {*servers} <= {*stored.servers}:
                self._know(stored, began)
                self._on_begin()
                return
            await asyncio.sleep(random.uniform(0, 0.02 * attempt))
        raise Unavailable("the generation of the hot tier changes too often")
