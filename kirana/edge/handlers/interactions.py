"""`/v1/interactions...`: what people did, in and out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from kirana.clock import unit_problem
from kirana.edge.http import HttpRequest, json_bytes
from kirana.edge.limits import Limits
from kirana.edge.messages import InteractionsPost, InteractionsQuery
from kirana.edge.protobuf import accepted_reply, forgotten_reply, interactions_reply
from kirana.errors import InvalidInput, KiranaError, TooLarge
from kirana.interactions import Event, InteractionQuery, Interactions, InteractionSource
from kirana.interactions.source import MAX_TIMESTAMP_MS
from kirana.loop import INLINE_ROWS, inline_or_thread
from kirana.request import RequestContext

DEFAULT_LAST = 20
_IN_QUERY = re.compile(r"queries\[(\d+)\]\.(user_id|event)")
_QUERY = {
    "last": "the newest so many",
    "since": "from this time in ms, included",
    "until": "to this time in ms, included",
    "limit": "at most so many of a range",
}


class InteractionHandlers:
    def __init__(self, interactions: InteractionSource, limits: Limits) -> None:
        self._interactions = interactions
        self._limits = limits

    async def post(self, request: HttpRequest) -> bytes:
        message = await request.decode(InteractionsPost)
        if not message.events:
            raise InvalidInput("send at least one event", field="events")
        if len(message.events) > self._limits.max_events:
            raise TooLarge(
                f"{len(message.events)} events, the limit is {self._limits.max_events}",
                field="events",
            )
        events = await inline_or_thread(len(message.events) <= INLINE_ROWS, _events, message)
        done = await self._interactions.append(events, request.context)
        if request.binary_reply:
            return accepted_reply(done)
        return json_bytes({"accepted": done.accepted, "expired": done.expired})

    async def get(self, request: HttpRequest) -> bytes:
        user_id, event = request.parameters
        query = self._query(user_id, event, **request.query(_QUERY))
        try:
            (found,) = await self._interactions.query([query], request.context)
        except KiranaError as error:
            at = _IN_QUERY.fullmatch(error.field or "")
            error.field = at[2] if at else error.field
            raise
        inline = len(found) <= INLINE_ROWS
        if request.binary_reply:
            return await inline_or_thread(inline, interactions_reply, [user_id], [event], [found])
        return await inline_or_thread(inline, _reply, found)

    async def query(self, request: HttpRequest) -> bytes:
        message = await request.decode(InteractionsQuery)
        if not message.user_ids or not message.events:
            field = "user_ids" if not message.user_ids else "events"
            raise InvalidInput("name at least one", field=field)
        users = list(dict.fromkeys(map(str, message.user_ids)))
        types = list(dict.fromkeys(message.events))
        if len(users) * len(types) > self._limits.max_keys:
            raise TooLarge(
                f"{len(users)} users x {len(types)} types, the limit is {self._limits.max_keys}",
                field="user_ids",
            )
        bounds = {name: value for name in _QUERY if (value := getattr(message, name)) is not None}
        queries = [self._query(user, event, **bounds) for user in users for event in types]
        if sum(query.limit for query in queries) > self._limits.max_cells:
            raise TooLarge("users x events x limit is too much for one call", field="user_ids")
        found = await self._ask(queries, message, request.context)
        inline = sum(map(len, found)) <= INLINE_ROWS
        encode = interactions_reply if request.binary_reply else _reply_to_many
        return await inline_or_thread(inline, encode, users, types, found)

    async def _ask(
        self,
        queries: Sequence[InteractionQuery],
        message: InteractionsQuery,
        context: RequestContext,
    ) -> list[Interactions]:
        """Query users x types; an error's field is the place in the request's own lists."""
        try:
            return await self._interactions.query(queries, context)
        except KiranaError as error:
            found = _IN_QUERY.fullmatch(error.field or "")
            if found:
                query = queries[int(found[1])]
                users = list(map(str, message.user_ids))
                error.field = (
                    f"user_ids[{users.index(query.user_id)}]"
                    if found[2] == "user_id"
                    else f"events[{message.events.index(query.event)}]"
                )
            raise

    async def delete(self, request: HttpRequest) -> bytes:
        (user_id,) = request.parameters
        deleted = await self._interactions.forget(user_id, request.context)
        return (
            forgotten_reply(deleted) if request.binary_reply else json_bytes({"deleted": deleted})
        )

    def _query(
        self,
        user_id: str,
        event: str,
        last: int | None = None,
        since: int | None = None,
        until: int | None = None,
        limit: int | None = None,
    ) -> InteractionQuery:
        most = self._limits.max_interactions
        ranged = since is not None or until is not None
        if last is not None and (ranged or limit is not None):
            raise InvalidInput("give 'last', or a range by 'since' and 'until'", field="last")
        name, count = ("last", last) if not ranged and limit is None else ("limit", limit)
        if count is None:
            count = most if ranged else DEFAULT_LAST
        if not 1 <= count <= most:
            raise InvalidInput(f"{count} is not between 1 and {most}", field=name)
        since = 0 if since is None else since
        until = MAX_TIMESTAMP_MS if until is None else until
        for field, value in (("since", since), ("until", until)):
            # the largest is how people spell that a range has no end
            problem = None if value == MAX_TIMESTAMP_MS else unit_problem(value)
            if problem is None and not 0 <= value <= MAX_TIMESTAMP_MS:
                problem = f"{value} is no time in milliseconds"
            if problem is not None:
                raise InvalidInput(problem, field=field)
        if since > until:
            raise InvalidInput(f"'since' ({since}) is after 'until' ({until})", field="since")
        return InteractionQuery(user_id, event, count, since, until)


def _events(message: InteractionsPost) -> list[Event]:
    for at, each in enumerate(message.events):
        problem = unit_problem(each.timestamp)
        if problem is not None:
            raise InvalidInput(problem, field=f"events[{at}].timestamp")
    return [
        Event(str(e.user_id), e.event, str(e.product_id), e.timestamp, e.metadata)
        for e in message.events
    ]


def _reply(interactions: Interactions) -> bytes:
    return json_bytes({"interactions": _records(interactions)})


def _reply_to_many(
    users: Sequence[str], types: Sequence[str], found: Sequence[Interactions]
) -> bytes:
    each = iter(found)
    reply = {user: {event: _records(next(each)) for event in types} for user in users}
    return json_bytes({"interactions": reply})


def _records(interactions: Interactions) -> Sequence[dict[str, Any]]:
    return [
        {"product_id": product, "timestamp": timestamp}
        if metadata is None
        else {"product_id": product, "timestamp": timestamp, "metadata": metadata}
        for product, timestamp, metadata in zip(
            interactions.product_ids,
            interactions.timestamps_ms.tolist(),
            interactions.metadata,
            strict=True,
        )
    ]
