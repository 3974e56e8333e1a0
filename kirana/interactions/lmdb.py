"""An interaction store in LMDB, with one key per event.

A key is `<user> 00 <event type> 00 <timestamp, 8 bytes big-endian> <product>`. Its value is the
metadata as JSON, or empty. The events of a user and type are sorted by time, and a query reads them
backwards. For event types with `repeats: latest`, a second database has the time of the newest
event of each product, under the key `<user> 00 <event type> 00 <product>`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np
import orjson

from kirana.byte_limit import ReadBytes
from kirana.errors import TooLarge
from kirana.interactions.source import (
    MAX_TIMESTAMP_MS,
    Event,
    InteractionQuery,
    Interactions,
)
from kirana.interactions.store import Retention
from kirana.lmdb import Environment, open_by_url
from kirana.loop import INLINE_BYTES

_TIME_BYTES = 8
_LAST_TIME = b"\xff" * _TIME_BYTES
_MESSAGE = ("the events", "read fewer events, or those of fewer users")
"""The subject and the advice of `TooLarge`."""

_INLINE_EVENTS = 2_000
"""The maximum number of events that the queries of one call read on the event loop."""


def _prefix(user_id: str, event: str) -> bytes:
    """Return the bytes that the keys of a user's events of one type start with."""
    return f"{user_id}\0{event}\0".encode()


def _time(timestamp_ms: int) -> bytes:
    """Return a timestamp as bytes that sort by time."""
    return timestamp_ms.to_bytes(_TIME_BYTES, "big")


class LmdbInteractionStore:
    """`InteractionStore` in an LMDB folder."""

    def __init__(self, environment: Environment) -> None:
        self._environment: Environment | None = environment
        self._events = environment.database(b"interactions")
        self._latest = environment.database(b"interactions.latest")

    @classmethod
    def open(cls, url: str, *, setting: str) -> LmdbInteractionStore:
        """Open `lmdb:///folder`.

        Raise `ConfigurationError` with the field `setting` if the URL is not valid or the folder
        can't be opened.
        """
        return cls(open_by_url(url, setting=setting))

    @property
    def environment(self) -> Environment:
        """The open environment. Raise `RuntimeError` if the store is closed."""
        if self._environment is None:
            raise RuntimeError("the store is closed")
        return self._environment

    async def append(self, events: Sequence[Event], retention: Mapping[str, Retention]) -> None:
        """Store events, and remove the oldest ones beyond `keep`, in one transaction."""
        await self.environment.write(lambda txn: self._append(txn, events, retention))

    def _append(
        self, txn: Any, events: Sequence[Event], retention: Mapping[str, Retention]
    ) -> None:
        """Store events in the transaction `txn`, and remove the oldest ones beyond `keep`."""
        rules: dict[bytes, Retention] = {}
        times_by_prefix: dict[bytes, dict[bytes, list[bytes]]] = {}
        for event in events:
            rule = retention[event.event]
            prefix = _prefix(event.user_id, event.event)
            product = event.product_id.encode()
            time = _time(event.timestamp_ms)
            if not rule.latest_only:
                # A time that was recorded under `repeats: latest` may no longer be the newest.
                txn.delete(prefix + product, db=self._latest)
            elif not self._replace_older(txn, prefix, product, time, times_by_prefix):
                continue
            metadata = b"" if event.metadata is None else orjson.dumps(event.metadata)
            txn.put(prefix + time + product, metadata, db=self._events)
            rules[prefix] = rule
        for prefix, rule in rules.items():
            self._trim(txn, prefix, rule)

    def _replace_older(
        self,
        txn: Any,
        prefix: bytes,
        product: bytes,
        time: bytes,
        times_by_prefix: dict[bytes, dict[bytes, list[bytes]]],
    ) -> bool:
        """Remove older events of a product, and record the time of the new event.

        Return False if a newer event is stored, so the new one must be dropped. `times_by_prefix`
        holds, for each prefix, the times of its products. They are read and added when a product of
        the prefix is not in the second database.
        """
        stored_time = txn.get(prefix + product, None, self._latest)
        if stored_time is None:
            # Under `repeats: all`, several events of this product may have been stored.
            if prefix not in times_by_prefix:
                times_by_prefix[prefix] = self._times_of_products(txn, prefix)
            times = times_by_prefix[prefix].get(product, [])
            for older in times[:-1]:
                txn.delete(prefix + older + product, db=self._events)
            stored_time = times[-1] if times else None
        if stored_time is not None:
            if stored_time > time:
                return False
            txn.delete(prefix + stored_time + product, db=self._events)
        txn.put(prefix + product, time, db=self._latest)
        return True

    def _times_of_products(self, txn: Any, prefix: bytes) -> dict[bytes, list[bytes]]:
        """Return the times of all events of a prefix by product, oldest first."""
        start = len(prefix) + _TIME_BYTES
        times: dict[bytes, list[bytes]] = {}
        with txn.cursor(db=self._events) as cursor:
            has_key = cursor.set_range(prefix)
            while has_key and cursor.key().startswith(prefix):
                key = cursor.key()
                times.setdefault(key[start:], []).append(key[len(prefix) : start])
                has_key = cursor.next()
        return times

    def _trim(self, txn: Any, prefix: bytes, rule: Retention) -> None:
        """Remove all but the newest `rule.keep` events of a prefix."""
        with txn.cursor(db=self._events) as cursor:
            if not _seek_last(cursor, prefix, _LAST_TIME):
                return
            kept = 0
            while kept < rule.keep and cursor.key().startswith(prefix):
                kept += 1
                if not cursor.prev():
                    return
            while cursor.key().startswith(prefix):
                if rule.latest_only:
                    product = cursor.key()[len(prefix) + _TIME_BYTES :]
                    txn.delete(prefix + product, db=self._latest)
                cursor.delete()
                if not cursor.prev():
                    return

    async def query(
        self, queries: Sequence[InteractionQuery], retention: Mapping[str, Retention]
    ) -> list[Interactions]:
        """Return one answer per query, all from one state of the store.

        If the queries together read at most `_INLINE_EVENTS` events and `INLINE_BYTES`, they run on
        the event loop, otherwise in a thread.
        """

        def read(txn: Any, limit: int | None = None) -> list[Interactions]:
            with txn.cursor(db=self._events) as cursor:
                read_bytes = ReadBytes(*_MESSAGE, limit)
                return [
                    _walk(cursor, query, retention[query.event], read_bytes) for query in queries
                ]

        most_read = sum(_most_read(query, retention[query.event]) for query in queries)
        if most_read <= _INLINE_EVENTS:
            # If the events turn out to be large, read them again in a thread.
            with suppress(TooLarge):
                return await self.environment.read_async(True, partial(read, limit=INLINE_BYTES))
        return await self.environment.read_async(False, read)

    async def forget(self, user_id: str) -> int:
        """Remove all events of a user in one transaction; return how many there were."""
        prefix = f"{user_id}\0".encode()

        def remove(txn: Any) -> int:
            counts = []
            for database in (self._events, self._latest):
                count = 0
                with txn.cursor(db=database) as cursor:
                    has_key = cursor.set_range(prefix)
                    while has_key and cursor.key().startswith(prefix):
                        has_key = cursor.delete()
                        count += 1
                counts.append(count)
            return counts[0]

        return await self.environment.write(remove)

    async def close(self) -> None:
        """Give up this store's use of the environment. No-op if the store is closed already.

        The last user of the environment waits for all queued writes, in a thread, and closes it.
        """
        environment, self._environment = self._environment, None
        if environment is not None:
            await asyncio.to_thread(environment.close)


def _seek_last(cursor: Any, prefix: bytes, time: bytes) -> bool:
    """Move the cursor to the newest event of `prefix` that is not after `time`.

    Return False if there is none.
    """
    has_key = cursor.set_range(prefix + time + b"\xff")
    has_key = cursor.prev() if has_key else cursor.last()
    return bool(has_key) and cursor.key().startswith(prefix)


def _most_read(query: InteractionQuery, rule: Retention) -> int:
    """Return how many events a query reads at most.

    Events after `until_ms` are read too, because they count towards `keep`. With `latest_only` the
    number is not known, because any number of repeats that were stored under `repeats: all` may
    have to be skipped. The result is then above `_INLINE_EVENTS`.
    """
    if rule.latest_only:
        return _INLINE_EVENTS + 1
    return query.limit if query.until_ms >= MAX_TIMESTAMP_MS else rule.keep


def _walk(
    cursor: Any, query: InteractionQuery, rule: Retention, read_bytes: ReadBytes
) -> Interactions:
    """Return the events of one query, newest first. Count the bytes of their ids and metadata."""
    prefix = _prefix(query.user_id, query.event)
    time_start, time_stop = len(prefix), len(prefix) + _TIME_BYTES
    product_ids: list[str] = []
    times: list[bytes] = []
    metadata: list[dict[str, Any] | None] = []
    since, until = _time(query.since_ms), _time(query.until_ms)
    seen: set[bytes] = set()
    kept = 0
    has_key = query.limit > 0 and _seek_last(cursor, prefix, _LAST_TIME)
    while has_key:
        key, value = cursor.item()
        time, product = key[time_start:time_stop], key[time_stop:]
        if not key.startswith(prefix) or time < since or kept == rule.keep:
            break
        if not rule.latest_only or product not in seen:
            seen.add(product)
            kept += 1
            if time <= until:
                read_bytes.add(len(product) + len(value))
                product_ids.append(product.decode())
                times.append(time)
                metadata.append(orjson.loads(value) if value else None)
        has_key = len(product_ids) < query.limit and cursor.prev()
    timestamps_ms = np.frombuffer(b"".join(times), dtype=">u8").astype(np.int64)
    return Interactions(product_ids, timestamps_ms, metadata)
