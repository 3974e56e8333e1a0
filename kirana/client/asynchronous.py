"""The asynchronous client: every route as a method, over any transport."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from google.protobuf.message import DecodeError

from kirana.client import wire
from kirana.client.errors import error_of
from kirana.client.http import HttpTransport
from kirana.client.replies import (
    Accepted,
    CatalogListing,
    CatalogRecord,
    Deleted,
    Features,
    FlowRun,
    InteractionList,
    Ranking,
    Written,
)
from kirana.client.transport import Broken, NotSent, Request, Transport
from kirana.client.wire import Id, Ids, Times, Values
from kirana.codecs.rows import Column
from kirana.errors import (
    ConnectionLost,
    DeadlineExceeded,
    InvalidInput,
    KiranaError,
    StoreFull,
    Unavailable,
)
from kirana.interactions import Event
from kirana.request import new_id

T = TypeVar("T")

DEFAULT_URL = "http://127.0.0.1:8000"
DEFAULT_TIMEOUT_S = 5.0
ATTEMPTS = 4
BACKOFF_S = 0.02
OVERLOADED = "overloaded"
"""The code of a reply that was refused before anything was done."""


class AsyncClient:
    """Calls Kirana over HTTP; for other transports see `kirana.client.handles`.

    Each call has `timeout_s` in all, attempts and pauses together, and what is left of it goes
    along as the deadline. What is safe to repeat (reads, and writes that say their own event
    time) is sent again when a connection breaks or a replica is not available; all else only
    where nobody has seen it. With `direct`, calls go to the direct ports of the replicas, of
    two the one with fewer under way, and to `url` where there are none.

    Every method raises `kirana.errors`: `InvalidInput` and `Unknown` with the `field`,
    `Unavailable`, `DeadlineExceeded`, `Conflict`, ... Each call has an id, the same in all its
    attempts; an error carries it as `request_id`, and so do the lines of Kirana's log.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        direct: bool = True,
        connections: int = 64,
        caller: str = "",
        transport: Transport | None = None,
    ) -> None:
        """`caller` is the name of what calls, by which Kirana's log and limits know it."""
        self._url = url
        self._headers = {"x-kirana-caller": caller} if caller else {}
        self._timeout_s = timeout_s
        self._transport = transport or HttpTransport(url, direct=direct, connections=connections)

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        await self._transport.close()

    async def get_features(
        self,
        entity: str,
        keys: Mapping[str, Ids],
        features: Sequence[str],
        *,
        provenance: bool = False,
        timeout_s: float | None = None,
    ) -> Features:
        """Read features of one entity, one row per key.

        `keys` maps each key of the entity to an id or to a list of ids. Lists must have one length;
        a single id goes with every row. `features` are `group.feature` names. With `provenance` the
        reply also says where each value came from, and how old each row is.

        Raises `Unknown` for an entity or a feature, `InvalidInput` for a key; both name the field.
        A row that is not stored has defaults, and its status says so.
        """
        body = wire.features_get(entity, keys, features, provenance)
        request = Request("POST", "/v1/features/get", body=body, binary=True)
        return await self._call(request, timeout_s, wire.features_reply)

    async def put_features(
        self,
        group: str,
        keys: Mapping[str, Ids],
        columns: Mapping[str, Values | Column],
        *,
        event_time: Times = None,
        schema_version: int | None = None,
        timeout_s: float | None = None,
    ) -> Written:
        """Write whole rows of a feature group, one per key.

        `columns` maps each feature to an array of its dtype, or to a list, in which None is null.
        `event_time` is one time in ms, or one for each row; it is now by default. A row that is
        older than the stored one is not written, and is counted as stale. `schema_version` is the
        newest by default.

        Raises `InvalidInput` that names the column or the key. Nothing is written then.
        """
        body, binary = wire.features_put(group, keys, columns, event_time, schema_version)
        safe = event_time is not None
        request = Request("POST", "/v1/features/put", body=body, binary=binary, safe=safe)
        return await self._call(request, timeout_s, partial(wire.put_reply, binary=binary))

    async def delete_features(
        self,
        group: str,
        keys: Mapping[str, Ids],
        *,
        event_time: Times = None,
        timeout_s: float | None = None,
    ) -> Deleted:
        """Delete rows of a feature group, one per key.

        An older row that arrives later does not bring it back. `event_time` is one time in ms, or
        one for each row; it is now by default.
        """
        body = wire.features_delete(group, keys, event_time)
        safe = event_time is not None
        request = Request("POST", "/v1/features/delete", body=body, binary=True, safe=safe)
        return await self._call(request, timeout_s, wire.delete_reply)

    async def add_interactions(
        self, events: Sequence[Event], *, timeout_s: float | None = None
    ) -> Accepted:
        """Store events: all of them, or none. The same event sent again is stored once.

        Raises `Unknown` for an event type and `InvalidInput` for an id or a timestamp, with a field
        like `events[3].timestamp`.
        """
        body = wire.interactions_post(events)
        request = Request("POST", "/v1/interactions", body=body, binary=True)
        return await self._call(request, timeout_s, wire.accepted_reply)

    async def interactions(
        self,
        user_id: Id,
        event: str,
        *,
        last: int | None = None,
        since: int | None = None,
        until: int | None = None,
        limit: int | None = None,
        timeout_s: float | None = None,
    ) -> InteractionList:
        """Return events of one user and type, newest first.

        Give `last`, how many of the newest (20 by default), or a range of time in ms by `since` and
        `until`, both included, with at most `limit` events.
        """
        found = await self.query_interactions(
            [user_id], [event], last=last, since=since, until=until, limit=limit,
            timeout_s=timeout_s,
        )  # fmt: skip
        lists = found.get(str(user_id), {})
        if event not in lists:
            raise KiranaError(f"{self._url} sent a reply without '{event}'")
        return lists[event]

    async def query_interactions(
        self,
        user_ids: Sequence[Id],
        events: Sequence[str],
        *,
        last: int | None = None,
        since: int | None = None,
        until: int | None = None,
        limit: int | None = None,
        timeout_s: float | None = None,
    ) -> dict[str, dict[str, InteractionList]]:
        """Return a list for each user and type; its bounds are those of `interactions`."""
        bounds = {"last": last, "since": since, "until": until, "limit": limit}
        body = wire.interactions_query(user_ids, events, bounds)
        request = Request("POST", "/v1/interactions/query", body=body, binary=True)
        return await self._call(request, timeout_s, wire.interactions_reply)

    async def forget(self, user_id: Id, *, timeout_s: float | None = None) -> int:
        """Remove all events of a user. Return how many there were."""
        path = wire.path_of("v1", "interactions", str(user_id))
        request = Request("DELETE", path, binary=True, safe=False)
        return await self._call(request, timeout_s, wire.forgotten_reply)

    async def infer(
        self,
        model_id: str,
        context: Mapping[str, Ids],
        *,
        inputs: Mapping[str, float | Values] | None = None,
        top_k: int | None = None,
        outputs: bool = False,
        matrix: bool = False,
        timeout_s: float | None = None,
    ) -> Ranking:
        """Score rows by an inferflow.

        `context` maps its ids to one id, or to a list with one id for each row. `inputs` are
        numbers: one for all rows, or one for each. With `top_k` only the best rows come back, best
        first. `outputs` also returns each output of the models, `matrix` the matrix that they were
        given.

        Raises `Unknown` for a model id, `InvalidInput` for an id or an input, `ModelFailed` if a
        model fails on the rows.
        """
        returned = [name for name, on in (("outputs", outputs), ("matrix", matrix)) if on]
        body = wire.infer(context, inputs or {}, top_k, returned)
        request = Request("POST", wire.path_of("v1", "infer", model_id), body=body, binary=True)
        return await self._call(request, timeout_s, wire.infer_reply)

    async def run_flow(
        self,
        name: str,
        context: Mapping[str, Any],
        *,
        trace: bool = False,
        timeout_s: float | None = None,
    ) -> FlowRun:
        """Run a flow, and return its candidates with their columns.

        `context` holds the ids and values that the flow declares. With `trace` the reply says what
        each node did and how long it took.

        Raises `Unknown` for a flow, `InvalidInput` for a context that lacks something, `NodeError`
        if a node without a fallback failed, `DeadlineExceeded` if it was late.
        """
        body = wire.json_body({"context": dict(context), "trace": trace})
        request = Request("POST", wire.path_of("v1", "flows", name), body=body)
        return await self._call(request, timeout_s, wire.flow_reply)

    async def catalog(
        self, *, history: int | None = None, timeout_s: float | None = None
    ) -> CatalogListing:
        """Return the names of all live objects, and the newest `history` revisions, or 20."""
        query = {} if history is None else {"history": str(history)}
        request = Request("GET", "/v1/catalog", query)
        return await self._call(request, timeout_s, wire.catalog_reply)

    async def get_object(
        self, kind: str, name: str, *, timeout_s: float | None = None
    ) -> CatalogRecord:
        """Return a live object, and a group's schema versions. Raises `Unknown` for its name."""
        request = Request("GET", wire.path_of("v1", "catalog", kind, name))
        return await self._call(request, timeout_s, wire.object_reply)

    async def put_object(
        self,
        kind: str,
        name: str,
        content: Mapping[str, Any],
        *,
        expected_revision: int | None = None,
        timeout_s: float | None = None,
    ) -> int:
        """Publish one object, and return the number of the new revision.

        With `expected_revision`, raises `Conflict` if another revision is live. Raises
        `CatalogError` with every problem if the catalog would not be valid; nothing changes then.
        """
        body = wire.json_body({"object": dict(content), "expected_revision": expected_revision})
        path = wire.path_of("v1", "catalog", kind, name)
        request = Request("PUT", path, body=body, safe=False)
        return await self._call(request, timeout_s, wire.revision_reply)

    async def delete_object(
        self,
        kind: str,
        name: str,
        *,
        expected_revision: int | None = None,
        timeout_s: float | None = None,
    ) -> int:
        """Remove one object, and return the number of the new revision.

        With `expected_revision`, raises `Conflict` if another revision is live. Raises
        `CatalogError` if another object needs this one, `Unknown` if it isn't there; nothing
        changes then.
        """
        query = {} if expected_revision is None else {"expected_revision": str(expected_revision)}
        path = wire.path_of("v1", "catalog", kind, name)
        request = Request("DELETE", path, query, safe=False)
        return await self._call(request, timeout_s, wire.revision_reply)

    async def publish(
        self,
        objects: Sequence[Mapping[str, Any]],
        *,
        delete: Sequence[tuple[str, str]] = (),
        expected_revision: int | None = None,
        timeout_s: float | None = None,
    ) -> int:
        """Put objects and delete others, given as (kind, name), as one revision. Return its number.

        With `expected_revision`, raises `Conflict` if another revision is live. Raises
        `CatalogError` with every problem if the catalog would not be valid; nothing changes then.
        """
        body = wire.json_body(
            {
                "objects": [dict(each) for each in objects],
                "delete": [{"kind": kind, "name": name} for kind, name in delete],
                "expected_revision": expected_revision,
            }
        )
        request = Request("POST", "/v1/catalog", body=body, safe=False)
        return await self._call(request, timeout_s, wire.revision_reply)

    async def health(self, *, timeout_s: float | None = None) -> dict[str, Any]:
        """Return the state of each part. Raises `Unavailable` if one is down."""
        return await self._call(Request("GET", "/healthz"), timeout_s, wire.plain_reply)

    async def endpoints(self, *, timeout_s: float | None = None) -> list[str]:
        """Return the URLs of the live direct ports."""
        return await self._call(Request("GET", "/v1/endpoints"), timeout_s, wire.endpoints_reply)

    async def _call(
        self, request: Request, timeout_s: float | None, read: Callable[[bytes], T]
    ) -> T:
        request_id = new_id()
        named = replace(request, headers={**self._headers, "x-request-id": request_id})
        try:
            return await self._answer(named, timeout_s, read)
        except KiranaError as error:
            error.request_id = request_id
            raise

    async def _answer(
        self, request: Request, timeout_s: float | None, read: Callable[[bytes], T]
    ) -> T:
        given_s = self._timeout_s if timeout_s is None else timeout_s
        try:
            async with asyncio.timeout(given_s) as timer:
                body = await self._attempt(request, timer)
        except TimeoutError:
            raise DeadlineExceeded(f"no answer from {self._url} in {given_s:g} s") from None
        try:
            return read(body)
        except (DecodeError, ValueError, KeyError, TypeError, InvalidInput) as error:
            shown = body[:60].decode(errors="replace")
            raise KiranaError(
                f"{self._url} sent a reply that Kirana would not send: {shown}"
            ) from error

    async def _attempt(self, request: Request, timer: asyncio.Timeout) -> bytes:
        """Send until there is an answer, or it must not, or need not, be sent again."""
        loop = asyncio.get_running_loop()
        attempt = 0
        while True:
            attempt += 1
            last = attempt == ATTEMPTS
            deadline = timer.when()
            assert deadline is not None
            error: KiranaError
            try:
                response = await self._transport.send(request, deadline - loop.time())
            except NotSent as reason:
                error, again = Unavailable(f"{self._url} can't be reached: {reason}"), True
            except Broken as reason:
                error = ConnectionLost(f"the connection to {self._url} broke: {reason}")
                again = request.safe
            else:
                if response.status == 200:
                    return response.body
                error = error_of(response.status, response.body)
                away = isinstance(error, Unavailable) and not isinstance(error, StoreFull)
                again = (away and request.safe) or error.code == OVERLOADED
            if last or not again:
                raise error
            await asyncio.sleep(BACKOFF_S * 2**attempt * random.uniform(0.5, 1.0))
