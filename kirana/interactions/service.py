"""Appends and queries of events in one store. `kirana.interactions.source` has the interface."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import orjson

from kirana.catalog.revisions import CatalogSource, Revisions
from kirana.catalog.snapshot import Catalog
from kirana.clock import FUTURE, MAX_FUTURE_MS
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
"""The maximum size of a user id or a product id, in bytes of UTF-8."""

MAX_METADATA_DEPTH = 64
"""How deep the lists and mappings in the metadata of an event may be nested."""

_PROBE = "healthz"
"""The user id that health checks query."""


class EventTypes:
    """One catalog revision, with the retention of each event type."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self.retention = {
            name: Retention(event_type.keep, event_type.ttl or 0, event_type.repeats == "latest")
            for name, event_type in catalog.event_types.items()
        }


class InteractionService:
    """`InteractionSource` over one store."""

    def __init__(self, store: InteractionStore, source: CatalogSource) -> None:
        self._store = store
        self._types = Revisions(source, EventTypes)

    async def prepare(self, revision: Revision) -> None:
        """Load a revision. Raise `Unavailable` if it can't be read."""
        await self._types.at(revision)

    async def health(self, revision: Revision) -> Health:
        """Check that the store answers a query, if there is an event type to query.

        Raise `Unavailable` if it does not, or if the revision can't be read.
        """
        types = await self._types.at(revision)
        for event in list(types.retention)[:1]:
            await self._store.query([InteractionQuery(_PROBE, event, 1)], types.retention)
        return Health()

    async def append(self, events: Sequence[Event], context: RequestContext) -> Appended:
        """Check all events, then store them. Large batches are checked in a thread."""
        types = await self._types.of(context)
        inline = len(events) <= INLINE_ROWS
        expired = await inline_or_thread(inline, _check, events, types, context.now_ms)
        await self._store.append(events, types.retention)
        return Appended(len(events) - expired, expired)

    async def query(
        self, queries: Sequence[InteractionQuery], context: RequestContext
    ) -> list[Interactions]:
        """Answer all queries. Events that are past the TTL of their type are left out."""
        types = await self._types.of(context)
        bounded_queries = []
        for position, query in enumerate(queries):
            types.catalog.event_type(query.event, field=("queries", position, "event"))
            _check_id(query.user_id, ("queries", position, "user_id"))
            ttl_ms = types.retention[query.event].ttl_ms
            if ttl_ms:
                query = replace(query, since_ms=max(query.since_ms, context.now_ms - ttl_ms + 1))
            bounded_queries.append(query)
        return await self._store.query(bounded_queries, types.retention)

    async def forget(self, user_id: str, context: RequestContext) -> int:
        """Remove all events of a user; return how many there were.

        Raise `InvalidInput` for an invalid user id, and `Unavailable` if the revision can't be
        read.
        """
        await self._types.of(context)
        _check_id(user_id, "user_id")
        return await self._store.forget(user_id)

    async def close(self) -> None:
        """Close the store."""
        await self._store.close()


def _check(events: Sequence[Event], types: EventTypes, now_ms: int) -> int:
    """Return how many events are past the TTL of their type.

    Raise `Unknown` for an unknown event type, and `InvalidInput` for an invalid event.
    """
    expired = 0
    latest_ms = min(now_ms + MAX_FUTURE_MS, MAX_TIMESTAMP_MS)
    for position, event in enumerate(events):
        types.catalog.event_type(event.event, field=f"events[{position}].event")
        _check_id(event.user_id, f"events[{position}].user_id")
        _check_id(event.product_id, f"events[{position}].product_id")
        if event.metadata is not None:
            _check_metadata(event.metadata, f"events[{position}].metadata")
        if not 0 <= event.timestamp_ms <= latest_ms:
            reason = "before 1970" if event.timestamp_ms < 0 else FUTURE
            raise InvalidInput(
                f"{event.timestamp_ms} is {reason}", field=f"events[{position}].timestamp"
            )
        ttl_ms = types.retention[event.event].ttl_ms
        expired += bool(ttl_ms) and event.timestamp_ms <= now_ms - ttl_ms
    return expired


def _check_metadata(metadata: dict[str, Any], field: str) -> None:
    """Raise `InvalidInput` if metadata can't be stored as JSON, or is nested too deeply."""
    try:
        text = orjson.dumps(metadata)
    except TypeError as error:
        raise InvalidInput(f"the metadata can't be stored: {error}", field=field) from None
    if text.count(b"{") + text.count(b"[") > MAX_METADATA_DEPTH and _depth(metadata) > (
        MAX_METADATA_DEPTH
    ):
        raise InvalidInput(
            f"the metadata is nested more than {MAX_METADATA_DEPTH} levels deep", field=field
        )


def _depth(value: object) -> int:
    """Return how deep the lists and mappings in `value` are nested.

    `value` must not be cyclic. `_check_metadata` makes sure of that: orjson refuses cyclic values.
    """
    level, depth = [value], 0
    while level := [item for item in level if isinstance(item, dict | list)]:
        depth += 1
        level = [
            inner for item in level for inner in (item.values() if isinstance(item, dict) else item)
        ]
    return depth


def _check_id(value: str, field: str | FieldPath) -> None:
    """Raise `InvalidInput` unless an id is valid Unicode, without NUL, and of a valid length."""
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise InvalidInput("an id must be valid Unicode", field=field) from None
    if not 0 < size <= MAX_ID_BYTES:
        message = f"the id has {size} bytes, the limit is {MAX_ID_BYTES}"
        raise InvalidInput(message if size else "an id must not be empty", field=field)
    if "\0" in value:
        raise InvalidInput("an id must not contain a NUL character", field=field)
