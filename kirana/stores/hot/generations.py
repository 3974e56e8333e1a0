"""The generation of the copies in a hot tier, which the durable store keeps.

Each copy in the hot tier carries a generation, and answers reads only of that generation. A new
one thus makes all copies useless at once. It begins when a writer could not remove the copies of
rows that it has written, and when a server with copies was not the same process all the time.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass

import msgspec

from kirana.errors import Unavailable
from kirana.loop import retrieve_error
from kirana.stores.base import FeatureStore
from kirana.stores.hot.base import TOKEN_BYTES, HotTier
from kirana.stores.rows import RowBlock, RowKeys

RECORD = RowKeys("kirana.hot", ["generation"])
"""The key of the record in the durable store."""

ENTITY = "kirana"
"""The entity of the record. Stores with one table per entity need a table for it."""

MAX_SERVERS = 100
"""How many servers a record has at most. The oldest ones are forgotten first."""

MAX_ATTEMPTS = 10
"""How often a process tries to write the record while other processes do the same."""

CHANGES_TOO_OFTEN = "the generation of the hot tier changes too often"


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
    it, unless the durable store does not answer.
    """

    def __init__(
        self,
        durable: FeatureStore,
        hot: HotTier,
        bound_s: float,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._durable = durable
        self._hot = hot
        self._bound_s = bound_s
        self._clock = clock
        self._known = _NO_RECORD
        self._known_at = -bound_s
        """When the read began that returned `_known`."""
        self._reading: asyncio.Task[None] | None = None
        self._beginning = asyncio.Lock()
        self._next: asyncio.Task[None] | None = None
        self.begun = 0
        """How many generations this process has begun."""
        self.reason = ""
        """Why the last read of the generation has failed; empty if it has not."""

    async def current(self) -> bytes:
        """Return the current generation.

        If the durable store does not answer, return the last one that is known. Raise `Unavailable`
        if none is known.
        """
        age_s = self._clock() - self._known_at
        if age_s < self._bound_s / 4:
            return self._known.generation
        if self._reading is None:
            self._reading = asyncio.create_task(self._read())
            self._reading.add_done_callback(retrieve_error)
        if age_s >= self._bound_s / 2:
            try:
                await asyncio.shield(self._reading)
            except Unavailable:
                if not self._known.generation:
                    raise
        return self._known.generation

    async def _read(self) -> None:
        try:
            for _ in range(MAX_ATTEMPTS):
                if await self._try_to_read():
                    self.reason = ""
                    return
            raise Unavailable(CHANGES_TOO_OFTEN)
        except Unavailable as error:
            self.reason = error.message
            raise
        finally:
            self._reading = None

    async def _try_to_read(self) -> bool:
        """Read the record, and record servers of the hot tier that are new.

        If a new server has keys, its copies may be older than writes that were acknowledged,
        because it came back with them or was a replica. A new generation begins then. Return False
        if another process began one meanwhile.
        """
        began = self._clock()
        record = await self._stored()
        servers: Mapping[str, bool] = {}
        with suppress(Unavailable):
            servers = await self._hot.servers()
        new = [server for server in servers if server not in record.servers]
        if not record.generation or not all(servers[server] for server in new):
            await self._begin(new)
        elif new:
            return await self._write(record.generation, new)
        else:
            self._known, self._known_at = record, began
        return True

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
        await self._write(b"", servers)
        self.begun += 1

    async def _write(self, generation: bytes, servers: Collection[str]) -> bool:
        """Write a record with more servers, and with a new generation if `generation` is empty.

        Return False, and write nothing, if `generation` is not the current one any more.
        """
        for _ in range(MAX_ATTEMPTS):
            stored = await self._stored()
            # The first byte tells a copy from a lease or a mark.
            token = generation or b"g" + os.urandom(TOKEN_BYTES - 1)
            if generation and stored.generation != generation:
                return False
            known = tuple(dict.fromkeys((*stored.servers, *servers)))[-MAX_SERVERS:]
            time_ms = max(int(time.time() * 1_000), stored.began_ms + 1)
            began = self._clock()
            mine = Record(time_ms, token, known)
            value = msgspec.json.encode(mine)
            await self._durable.write(RowBlock.of(RECORD.group, _CODEC, RECORD.keys, [value]))
            # Another process may have written at the same time. One of the two records stays.
            if await self._stored() == mine:
                self._known, self._known_at = mine, began
                return True
        raise Unavailable(CHANGES_TOO_OFTEN)
