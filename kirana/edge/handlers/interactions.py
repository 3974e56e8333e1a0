"""The handlers of `/v1/interactions`: store, read and delete events of users."""

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


INLINE_METADATA = 50
"""How many events with metadata are encoded on the event loop. Metadata may be large."""


async def post(request: Request, resources: Resources) -> Response:
    """Store events, either all or none."""
    message = await request.decode(InteractionsPost)
    events = await inline_or_thread(len(message.events) <= INLINE_ROWS, _events, message)
    result = await resources.parts[INTERACTIONS].append(events, request.context)
    if request.binary_reply:
        return binary_response(accepted_reply(result))
    return json_response(InteractionsPostReply(result.accepted, result.expired))


async def get(request: Request, resources: Resources) -> Response:
    """Return the events of one user and type, newest first, within the bounds of the query."""
    user_id, event = request.parameters
    query = _query_of(user_id, event, request.query(InteractionsBounds))
    try:
        (interactions,) = await resources.parts[INTERACTIONS].query([query], request.context)
    except KiranaError as error:
        match error.path:
            case ("queries", int(), field):
                error.path = (field,)
            case () if isinstance(error, TooLarge):
                error.path = ("last",)
        raise
    inline = _is_small([interactions])
    if request.binary_reply:
        return binary_response(
            await inline_or_thread(inline, interactions_reply, [user_id], [event], [interactions])
        )
    return await inline_or_thread(inline, _response, interactions)


async def query(request: Request, resources: Resources) -> Response:
    """Return one list of events per user and type. Repeated users or types count once.

    Raise `TooLarge` if the reply would have more than `MAX_KEYS` lists, or could have more than
    `MAX_CELLS` events.
    """
    message = await request.decode(InteractionsQuery)
    users = list(dict.fromkeys(map(str, message.user_ids)))
    types = list(dict.fromkeys(message.events))
    if len(users) * len(types) > MAX_KEYS:
        raise TooLarge(
            f"{len(users)} users x {len(types)} types are {len(users) * len(types)} lists, the "
            f"limit is {MAX_KEYS}",
            field="user_ids",
        )
    queries = [_query_of(user, event, message) for user in users for event in types]
    max_events = sum(query.limit for query in queries)
    if max_events > MAX_CELLS:
        raise TooLarge(
            f"{len(users)} users x {len(types)} types can have {max_events} events, the limit is "
            f"{MAX_CELLS}",
            field="user_ids",
        )
    try:
        lists = await resources.parts[INTERACTIONS].query(queries, request.context)
    except KiranaError as error:
        _set_path(error, message, queries)
        raise
    inline = _is_small(lists)
    if request.binary_reply:
        return binary_response(
            await inline_or_thread(inline, interactions_reply, users, types, lists)
        )
    return await inline_or_thread(inline, _query_response, users, types, lists)


async def delete(request: Request, resources: Resources) -> Response:
    """Delete all events of a user."""
    (user_id,) = request.parameters
    deleted = await resources.parts[INTERACTIONS].forget(user_id, request.context)
    if request.binary_reply:
        return binary_response(forgotten_reply(deleted))
    return json_response(InteractionsDeleteReply(deleted))


def _is_small(lists: Sequence[Interactions]) -> bool:
    """Return whether a reply with these events is encoded on the event loop."""
    count = sum(map(len, lists))
    if count > INLINE_ROWS:
        return False
    return count <= INLINE_METADATA or not any(any(events.metadata) for events in lists)


def _set_path(
    error: KiranaError, message: InteractionsQuery, queries: Sequence[InteractionQuery]
) -> None:
    """Replace an error's path to a query by the path to its user or event type in the request."""
    match error.path:
        case () if isinstance(error, TooLarge):
            error.path = ("user_ids",)
        case ("queries", int(position), "user_id"):
            users = list(map(str, message.user_ids))
            error.path = ("user_ids", users.index(queries[position].user_id))
        case ("queries", int(position), "event"):
            error.path = ("events", message.events.index(queries[position].event))


def _query_of(
    user_id: str, event: str, bounds: InteractionsQuery | InteractionsBounds
) -> InteractionQuery:
    """Return a query for the newest events of a user and type, within `bounds`.

    Raise `InvalidInput` with the field if a time is wrong, or if the bounds contradict each other.
    """
    last, limit = _none_if_unset(bounds.last), _none_if_unset(bounds.limit)
    since, until = _none_if_unset(bounds.since), _none_if_unset(bounds.until)
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


def _none_if_unset(value: int | UnsetType | None) -> int | None:
    return None if value is UNSET else value


def _time_problem(value: int | None) -> str | None:
    """Return what is wrong with a bound of a time range, or None."""
    if value is None or value == MAX_TIMESTAMP_MS:
        return None
    problem = unit_problem(value)
    if problem is None and not 0 <= value <= MAX_TIMESTAMP_MS:
        return f"{value} is not a time in milliseconds"
    return problem


def _events(message: InteractionsPost) -> list[Event]:
    for index, event in enumerate(message.events):
        problem = unit_problem(event.timestamp)
        if problem is not None:
            raise InvalidInput(problem, field=("events", index, "timestamp"))
    return [
        Event(str(e.user_id), e.event, str(e.product_id), e.timestamp, e.metadata)
        for e in message.events
    ]


def _response(events: Interactions) -> Response:
    return json_response(InteractionsGetReply(_records(events)))


def _query_response(
    users: Sequence[str], types: Sequence[str], interactions: Sequence[Interactions]
) -> Response:
    lists = iter(interactions)
    by_user = {user: {event: _records(next(lists)) for event in types} for user in users}
    return json_response(InteractionsQueryReply(by_user))


def _records(events: Interactions) -> list[Interaction]:
    return [
        Interaction(product, timestamp, UNSET if metadata is None else metadata)
        for product, timestamp, metadata in zip(
            events.product_ids, events.timestamps_ms.tolist(), events.metadata, strict=True
        )
    ]
