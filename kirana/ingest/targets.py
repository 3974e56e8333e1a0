"""Where a push writes its rows: a store, or a topic of Kafka."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Generic, Protocol, TypeVar

import numpy as np

from kirana.errors import Unavailable
from kirana.ingest.feature_batch import FeatureBatch
from kirana.ingest.feature_file import FeatureFile
from kirana.ingest.journal import Pushed
from kirana.kafka.sending import Outgoing, Sender
from kirana.kafka.topics import Layout
from kirana.stores import FeatureStore, RowBlock, RowKeys
from kirana.streams.messages import DeleteRows, PutRows
from kirana.streams.spool import SpoolWriter
from kirana.streams.spooled import spool_rows

T = TypeVar("T")


class Target(Protocol, Generic[T]):
    """Takes the rows of files, batch by batch. `T` is what it makes of a batch beforehand.

    The methods raise `Unavailable` if the server does not answer, or does not take all rows.
    """

    async def open(self) -> None:
        """Connect."""

    async def has(self, group: str, keys: Sequence[str]) -> bool:
        """Return whether the target has rows of all keys. One that can't know returns True."""

    def batches(
        self, file: FeatureFile, now_ms: int, done: int
    ) -> Iterator[tuple[FeatureBatch, T]]:
        """Yield the batches of a file without the first `done` rows, each with what is written."""

    async def write(self, rows: T, pushed: Pushed) -> None:
        """Write a batch, and count its rows in `pushed`."""


class StoreTarget:
    """A store. If not `guarded`, rows may replace newer ones."""

    def __init__(self, store: FeatureStore, *, guarded: bool = True) -> None:
        self._store = store
        self._guarded = guarded

    async def open(self) -> None:
        """Do nothing: a store connects when it is used."""

    async def has(self, group: str, keys: Sequence[str]) -> bool:
        """Return whether the store has rows of all keys. Rows that have expired may be gone."""
        (rows,) = await self._store.read([RowKeys(group, keys)])
        if rows.unavailable is not None:
            raise Unavailable(rows.reason)
        return None not in rows.values

    def batches(
        self, file: FeatureFile, now_ms: int, done: int
    ) -> Iterator[tuple[FeatureBatch, RowBlock]]:
        """Yield the batches of a file, each also as rows for a store."""
        return file.blocks(now_ms, done)

    async def write(self, rows: RowBlock, pushed: Pushed) -> None:
        """Write a batch. Expired rows are written, too, because they must replace older rows."""
        expired = rows.expired(time.time())
        live_rows = rows
        if expired.any():
            # If a key has several rows, the expired ones are the oldest. They must not replace the
            # others, so they are written first.
            expired_rows = rows.select(np.flatnonzero(expired))
            await self._store.load(expired_rows, guarded=self._guarded)
            pushed.expired += len(expired_rows)
            live_rows = rows.select(np.flatnonzero(~expired))
        loaded = await self._store.load(live_rows, guarded=self._guarded)
        pushed.written += loaded.stored + loaded.unknown
        pushed.rows += len(rows)


class SpooledTarget:
    """A store, and the spool of its archive. `revision` is that of the catalog."""

    def __init__(self, target: StoreTarget, spool: SpoolWriter, revision: int) -> None:
        self._target = target
        self._spool = spool
        self._revision = revision

    async def open(self) -> None:
        """Do nothing: a store connects when it is used."""

    async def has(self, group: str, keys: Sequence[str]) -> bool:
        """Return whether the store has rows of all keys."""
        return await self._target.has(group, keys)

    def batches(
        self, file: FeatureFile, now_ms: int, done: int
    ) -> Iterator[tuple[FeatureBatch, tuple[RowBlock, PutRows | DeleteRows]]]:
        """Yield the batches of a file, each also as rows for a store and for the spool."""
        for batch, block in self._target.batches(file, now_ms, done):
            yield batch, (block, file.stream_rows_of(batch))

    async def write(self, rows: tuple[RowBlock, PutRows | DeleteRows], pushed: Pushed) -> None:
        """Write a batch, and then spool it."""
        block, of_spool = rows
        await self._target.write(block, pushed)
        spool_rows(self._spool, of_spool, self._revision)


class StreamTarget:
    """A topic. Consumers write its rows to the store."""

    IN_FLIGHT = 64
    """How many messages are sent before they are waited for."""

    def __init__(self, sender: Sender, *, timeout_s: float) -> None:
        self._sender = sender
        self._timeout_s = timeout_s
        self._layout: Layout | None = None

    async def open(self) -> None:
        """Connect, and learn what the topic takes."""
        self._layout = await self._sender.layout()

    async def has(self, group: str, keys: Sequence[str]) -> bool:
        """Return True. Messages are not looked up."""
        return True

    def batches(
        self, file: FeatureFile, now_ms: int, done: int
    ) -> Iterator[tuple[FeatureBatch, list[Outgoing]]]:
        """Yield the batches of a file, each also as messages."""
        assert self._layout is not None
        for batch, rows in file.stream_rows(now_ms, done):
            yield batch, list(rows.messages(self._layout))

    async def write(self, rows: list[Outgoing], pushed: Pushed) -> None:
        """Send the messages of a batch."""
        for start in range(0, len(rows), self.IN_FLIGHT):
            messages = rows[start : start + self.IN_FLIGHT]
            await self._sender.send(messages, timeout_s=self._timeout_s)
        sent = sum(message.rows for message in rows)
        pushed.sent += sent
        pushed.rows += sent
