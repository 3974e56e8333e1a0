"""Events in and queries out over one store. See `InteractionSource` for the contract."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import orjson

from kirana.catalog.revisions import CatalogSource, Revisions
from kirana.catalog.snapshot import Catalog
from kirana.clock import MAX_FUTURE_MS
from kirana.errors import FieldPath, InvalidInput
from kirana.interactions.source import (
    MAX_TIMESTAMP_MS,
    Appended,
    Event,
    InteractionQuery,
    Interactions,
)
from kirana.interactions.store import InteractionStore, Retention
from kirana.loop import INLINE_ROWS, inline_or_thread
from kirana.request import RequestContext
from kirana.revision import Revision
from kirana.service import Health

MAX_ID_BYTES = 200
MAX_METADATA_DEPTH = 64
_PROBE = "healthz"


class EventTypes:
    """A revision of the catalog as the interaction store wants it."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self.retention = {
            name: Retention(each.keep, each.ttl or 0, each.repeats == "latest")
            for name, each in catalog.event_types.items()
        }


class InteractionService:
    """Implements `InteractionSource` over a store."""

    def __init__(self, store: InteractionStore, source: CatalogSource) -> None:
        self._store = store
        self._types = Revisions(source, EventTypes)

    async def prepare(self, revision: Revision) -> None:
        await self._types.at(revision)

    async def health(self, revision: Revision) -> Health:
        types = await self._types.at(revision)
        for event in list(types.retention)[:1]:
            await self._store.query([InteractionQuery(_PROBE, event, 1)], types.retention)
        return Health()

    async def append(self, events: Sequence[Event], context: RequestContext) -> Appended:
        types = await self._types.at(context.revision)
        inline = len(events) <= INLINE_ROWS
        expired = await inline_or_thread(inline, _check, events, types, context.now_ms)
        await self._store.append(events, types.retention)
        return Appended(len(events) - expired, expired)

    async def query(
        self, queries: Sequence[InteractionQuery], context: RequestContext
    ) -> list[Interactions]:
        types = await self._types.at(context.revision)
        answered = []
        for at, query in enumerate(queries):
            types.catalog.event_type(query.event, field=("queries", at, "event"))
            _check_id(query.user_id, ("queries", at, "user_id"))
            ttl_ms = types.retention[query.event].ttl_ms
            if ttl_ms:
                query = replace(query, since_ms=max(query.since_ms, context.now_ms - ttl_ms + 1))
            answered.append(query)
        return await self._store.query(answered, types.retention)

    async def forget(self, user_id: str, context: RequestContext) -> int:
        await self._types.at(context.revision)
        _check_id(user_id, "user_id")
        return await self._store.forget(user_id)

    async def close(self) -> None:
        await self._store.close()


def _check(events: Sequence[Event], types: EventTypes, now_ms: int) -> int:
    """Refuse events that are none; return how many are past the TTL of their type."""
    expired = 0
    latest = min(now_ms + MAX_FUTURE_MS, MAX_TIMESTAMP_MS)
    for at, event in enumerate(events):
        types.catalog.event_type(event.event, field=f"events[{at}].event")
        _check_id(event.user_id, f"events[{at}].user_id")
        _check_id(event.product_id, f"events[{at}].product_id")
        if event.metadata is not None:
            _check_metadata(event.metadata, f"events[{at}].metadata")
        if not 0 <= event.timestamp_ms <= latest:
            reason = "is before 1970" if event.timestamp_ms < 0 else "is in the future"
            raise InvalidInput(
                f"{event.timestamp_ms} {reason}: a timestamp is in milliseconds, and at "
                "most five minutes ahead",
                field=f"events[{at}].timestamp",
            )
        ttl_ms = types.retention[event.event].ttl_ms
        expired += bool(ttl_ms) and event.timestamp_ms <= now_ms - ttl_ms
    return expired


def _check_metadata(metadata: dict[str, Any], field: str) -> None:
    try:
        text = orjson.dumps(metadata)
    except TypeError as error:
        raise InvalidInput(f"this can't be stored: {error}", field=field) from None
    if text.count(b"{") + text.count(b"[") > MAX_METADATA_DEPTH and _depth(metadata) > (
        MAX_METADATA_DEPTH
    ):
        raise InvalidInput(f"it is nested more than {MAX_METADATA_DEPTH} deep", field=field)


def _depth(value: object) -> int:
    """Return how deep lists and mappings are nested; orjson has refused what has no end."""
    level, depth = [value], 0
    while level := [each for each in level if isinstance(each, dict | list)]:
        depth += 1
        level = [
            inner for each in level for inner in (each.values() if isinstance(each, dict) else each)
        ]
    return depth


def _check_id(value: str, field: str | FieldPath) -> None:
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise InvalidInput("an id must be valid Unicode", field=field) from None
    if not 0 < size <= MAX_ID_BYTES:
        raise InvalidInput(
            f"an id must have 1 to {MAX_ID_BYTES} bytes, this one has {size}", field=field
        )
    if "\0" in value:
        raise InvalidInput("an id must not hold a NUL character", field=field)
