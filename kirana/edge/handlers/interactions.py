"""`/v1/interactions...`: what people did, in and out."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import UNSET, UnsetType

from kirana.clock import unit_problem
from kirana.edge.exchange import Request, Response, binary_response, json_response
from kirana.edge.limits import MAX_CELLS, MAX_INTERACTIONS, MAX_KEYS
from kirana.edge.messages import InteractionsBounds, InteractionsPost, InteractionsQuery
from kirana.edge.protobuf import accepted_reply, forgotten_reply, interactions_reply
from kirana.edge.replies import (
    Interaction,
    InteractionsDeleteReply,
    InteractionsGetReply,
    InteractionsPostReply,
    InteractionsQueryReply,
)
from kirana.edge.resources import Resources
from kirana.errors import InvalidInput, KiranaError, TooLarge
from kirana.interactions import Event, InteractionQuery, Interactions
from kirana.interactions.part import INTERACTIONS
from kirana.interactions.source import MAX_TIMESTAMP_MS
from kirana.loop import INLINE_ROWS, inline_or_thread

DEFAULT_LAST = 20


async def post(request: Request, resources: Resources) -> Response:
    message = await request.decode(InteractionsPost)
    events = await inline_or_thread(len(message.events) <= INLINE_ROWS, _events, message)
    done = await resources.parts[INTERACTIONS].append(events, request.context)
    if request.binary_reply:
        return binary_response(accepted_reply(done))
    return json_response(InteractionsPostReply(done.accepted, done.expired))


async def get(request: Request, resources: Resources) -> Response:
    user_id, event = request.parameters
    query = _query_of(user_id, event, request.query(InteractionsBounds))
    try:
        (found,) = await resources.parts[INTERACTIONS].query([query], request.context)
    except KiranaError as error:
        match error.path:
            case ("queries", int(), field):
                error.path = (field,)
        raise
    inline = len(found) <= INLINE_ROWS
    if request.binary_reply:
        return binary_response(
            await inline_or_thread(inline, interactions_reply, [user_id], [event], [found])
        )
    return await inline_or_thread(inline, _response, found)


async def query(request: Request, resources: Resources) -> Response:
    message = await request.decode(InteractionsQuery)
    users = list(dict.fromkeys(map(str, message.user_ids)))
    types = list(dict.fromkeys(message.events))
    if len(users) * len(types) > MAX_KEYS:
        raise TooLarge(
            f"{len(users)} users x {len(types)} types, the limit is {MAX_KEYS}", field="user_ids"
        )
    queries = [_query_of(user, event, message) for user in users for event in types]
    if sum(query.limit for query in queries) > MAX_CELLS:
        raise TooLarge("users x events x limit is too much for one call", field="user_ids")
    try:
        found = await resources.parts[INTERACTIONS].query(queries, request.context)
    except KiranaError as error:
        _point_into(error, message, queries)
        raise
    inline = sum(map(len, found)) <= INLINE_ROWS
    if request.binary_reply:
        return binary_response(
            await inline_or_thread(inline, interactions_reply, users, types, found)
        )
    return await inline_or_thread(inline, _response_to_many, users, types, found)


async def delete(request: Request, resources: Resources) -> Response:
    (user_id,) = request.parameters
    deleted = await resources.parts[INTERACTIONS].forget(user_id, request.context)
    if request.binary_reply:
        return binary_response(forgotten_reply(deleted))
    return json_response(InteractionsDeleteReply(deleted))


def _point_into(
    error: KiranaError, message: InteractionsQuery, queries: Sequence[InteractionQuery]
) -> None:
    """Replace the index in `queries` by the one in a list of the request."""
    match error.path:
        case ("queries", int(at), "user_id"):
            users = list(map(str, message.user_ids))
            error.path = ("user_ids", users.index(queries[at].user_id))
        case ("queries", int(at), "event"):
            error.path = ("events", message.events.index(queries[at].event))


def _query_of(
    user_id: str, event: str, bounds: InteractionsQuery | InteractionsBounds
) -> InteractionQuery:
    """Return the query for the newest events, or a range. Raises `InvalidInput` with the field."""
    last, limit = _given(bounds.last), _given(bounds.limit)
    since, until = _given(bounds.since), _given(bounds.until)
    ranged = since is not None or until is not None
    if last is not None and (ranged or limit is not None):
        raise InvalidInput(
            "give either 'last', or a range with 'since', 'until' and 'limit'", field="last"
        )
    count = limit or last or (MAX_INTERACTIONS if ranged else DEFAULT_LAST)
    for field, value in (("since", since), ("until", until)):
        problem = _time_problem(value)
        if problem is not None:
            raise InvalidInput(problem, field=field)
    first = 0 if since is None else since
    until = MAX_TIMESTAMP_MS if until is None else until
    if first > until:
        raise InvalidInput(f"'since' ({first}) is after 'until' ({until})", field="since")
    return InteractionQuery(user_id, event, count, first, until)


def _given(value: int | UnsetType | None) -> int | None:
    return None if value is UNSET else value


def _time_problem(value: int | None) -> str | None:
    if value is None or value == MAX_TIMESTAMP_MS:
        return None
    problem = unit_problem(value)
    if problem is None and not 0 <= value <= MAX_TIMESTAMP_MS:
        return f"{value} is not a time in milliseconds"
    return problem


def _events(message: InteractionsPost) -> list[Event]:
    for at, each in enumerate(message.events):
        problem = unit_problem(each.timestamp)
        if problem is not None:
            raise InvalidInput(problem, field=("events", at, "timestamp"))
    return [
        Event(str(e.user_id), e.event, str(e.product_id), e.timestamp, e.metadata)
        for e in message.events
    ]


def _response(found: Interactions) -> Response:
    return json_response(InteractionsGetReply(_records(found)))


def _response_to_many(
    users: Sequence[str], types: Sequence[str], found: Sequence[Interactions]
) -> Response:
    each = iter(found)
    by_user = {user: {event: _records(next(each)) for event in types} for user in users}
    return json_response(InteractionsQueryReply(by_user))


def _records(found: Interactions) -> list[Interaction]:
    return [
        Interaction(product, timestamp, UNSET if metadata is None else metadata)
        for product, timestamp, metadata in zip(
            found.product_ids, found.timestamps_ms.tolist(), found.metadata, strict=True
        )
    ]
