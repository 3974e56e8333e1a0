"""Interactions in LMDB: one sorted key an event, so that a query is a walk backwards.

`<user> 00 <event type> 00 <timestamp, 8 bytes big-endian> <product>` -> metadata as JSON, or
nothing. Of types with `repeats: latest` a second database knows where a product stands.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import orjson

from kirana.interactions.source import (
    MAX_TIMESTAMP_MS,
    Event,
    InteractionQuery,
    Interactions,
)
from kirana.interactions.store import Retention
from kirana.lmdb import Environment, open_by_url

_TIME_BYTES = 8
_LAST_TIME = b"\xff" * _TIME_BYTES
_INLINE_EVENTS = 2_000


def _prefix(user_id: str, event: str) -> bytes:
    return f"{user_id}\0{event}\0".encode()


def _time(timestamp_ms: int) -> bytes:
    return timestamp_ms.to_bytes(_TIME_BYTES, "big")


class LmdbInteractionStore:
    """See `kirana.interactions.store.InteractionStore`."""

    def __init__(self, environment: Environment) -> None:
        self._environment: Environment | None = environment
        self._events = environment.database(b"interactions")
        self._latest = environment.database(b"interactions.latest")

    @classmethod
    def open(cls, url: str, *, setting: str) -> LmdbInteractionStore:
        return cls(open_by_url(url, setting=setting))

    @property
    def environment(self) -> Environment:
        if self._environment is None:
            raise RuntimeError("the store is closed")
        return self._environment

    async def append(self, events: Sequence[Event], retention: Mapping[str, Retention]) -> None:
        await self.environment.write(lambda txn: self._append(txn, events, retention))

    def _append(
        self, txn: Any, events: Sequence[Event], retention: Mapping[str, Retention]
    ) -> None:
        touched: dict[bytes, Retention] = {}
        walked: dict[bytes, dict[bytes, list[bytes]]] = {}
        for event in events:
            rule = retention[event.event]
            prefix = _prefix(event.user_id, event.event)
            product = event.product_id.encode()
            time = _time(event.timestamp_ms)
            if not rule.latest_only:
                txn.delete(prefix + product, db=self._latest)
            elif not self._move_up(txn, prefix, product, time, walked):
                continue
            metadata = b"" if event.metadata is None else orjson.dumps(event.metadata)
            txn.put(prefix + time + product, metadata, db=self._events)
            touched[prefix] = rule
        for prefix, rule in touched.items():
            self._trim(txn, prefix, rule)

    def _move_up(
        self,
        txn: Any,
        prefix: bytes,
        product: bytes,
        time: bytes,
        walked: dict[bytes, dict[bytes, list[bytes]]],
    ) -> bool:
        """Make room for the newest of a product; False if what is there is newer.

        `walked` holds, by prefix, the times of each product when one was first looked for.
        """
        known = txn.get(prefix + product, None, self._latest)
        if known is None:
            # from the time when all events were kept there may be several of this product
            if prefix not in walked:
                walked[prefix] = self._times_of_products(txn, prefix)
            times = walked[prefix].get(product, [])
            for older in times[:-1]:
                txn.delete(prefix + older + product, db=self._events)
            known = times[-1] if times else None
        if known is not None:
            if known > time:
                return False
            txn.delete(prefix + known + product, db=self._events)
        txn.put(prefix + product, time, db=self._latest)
        return True

    def _times_of_products(self, txn: Any, prefix: bytes) -> dict[bytes, list[bytes]]:
        """Return the times of the events of each product, the oldest first."""
        start = len(prefix) + _TIME_BYTES
        times: dict[bytes, list[bytes]] = {}
        with txn.cursor(db=self._events) as cursor:
            found = cursor.set_range(prefix)
            while found and cursor.key().startswith(prefix):
                key = cursor.key()
                times.setdefault(key[start:], []).append(key[len(prefix) : start])
                found = cursor.next()
        return times

    def _trim(self, txn: Any, prefix: bytes, rule: Retention) -> None:
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
        def read(txn: Any) -> list[Interactions]:
            with txn.cursor(db=self._events) as cursor:
                return [_walk(cursor, query, retention[query.event]) for query in queries]

        walked = sum(_most_walked(query, retention[query.event]) for query in queries)
        inline = walked <= _INLINE_EVENTS
        return await self.environment.read_async(inline, read)

    async def forget(self, user_id: str) -> int:
        prefix = f"{user_id}\0".encode()

        def remove(txn: Any) -> int:
            counts = []
            for database in (self._events, self._latest):
                count = 0
                with txn.cursor(db=database) as cursor:
                    found = cursor.set_range(prefix)
                    while found and cursor.key().startswith(prefix):
                        found = cursor.delete()
                        count += 1
                counts.append(count)
            return counts[0]

        return await self.environment.write(remove)

    async def close(self) -> None:
        environment, self._environment = self._environment, None
        if environment is not None:
            await asyncio.to_thread(environment.close)


def _seek_last(cursor: Any, prefix: bytes, time: bytes) -> bool:
    """Put the cursor on the last key of `prefix` that is not after `time`; False if none is."""
    found = cursor.set_range(prefix + time + b"\xff")
    found = cursor.prev() if found else cursor.last()
    return bool(found) and cursor.key().startswith(prefix)


def _most_walked(query: InteractionQuery, rule: Retention) -> int:
    """Return how many events a query looks at, as far as that is known beforehand.

    Those after a range count for `keep`. Repeats that were stored under another rule, of which
    there may be any number, are passed over.
    """
    if rule.latest_only:
        return _INLINE_EVENTS + 1
    return query.limit if query.until_ms >= MAX_TIMESTAMP_MS else rule.keep


def _walk(cursor: Any, query: InteractionQuery, rule: Retention) -> Interactions:
    prefix = _prefix(query.user_id, query.event)
    start, stop = len(prefix), len(prefix) + _TIME_BYTES
    products: list[str] = []
    times: list[bytes] = []
    metadata: list[dict[str, Any] | None] = []
    since, until = _time(query.since_ms), _time(query.until_ms)
    seen: set[bytes] = set()
    kept = 0
    going = query.limit > 0 and _seek_last(cursor, prefix, _LAST_TIME)
    while going:
        key, value = cursor.item()
        time, product = key[start:stop], key[stop:]
        if not key.startswith(prefix) or time < since or kept == rule.keep:
            break
        if not rule.latest_only or product not in seen:
            seen.add(product)
            kept += 1
            if time <= until:
                products.append(product.decode())
                times.append(time)
                metadata.append(orjson.loads(value) if value else None)
        going = len(products) < query.limit and cursor.prev()
    stamps = np.frombuffer(b"".join(times), dtype=">u8").astype(np.int64)
    return Interactions(products, stamps, metadata)
