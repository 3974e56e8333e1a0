"""The asynchronous client: a method for each route, over any transport."""

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
    Overloaded,
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


class AsyncClient:
    """Client for asyncio, over HTTP or another `transport`.

    A call with all its attempts takes at most `timeout_s` seconds. If the connection breaks or a
    replica is unavailable, the call is sent again, at most three times. Changes of the catalog,
    `forget`, and writes or deletes of features without `event_time` are sent again only if Kirana
    has not begun to process them. With `direct`, a call goes to the less busy of two random direct
    ports, and to `url` if no direct port can be used. `connections` is the maximum number of
    connections per address. Another `transport` ignores `direct` and `connections`. `caller` names
    the calling program. The constructor raises `InvalidInput` if `url` is not an HTTP URL.

    All methods raise errors of `kirana.errors`. Besides those that they name, they may raise
    `Unavailable`, `DeadlineExceeded`, and `TooLarge` if a request exceeds a limit. Each call has
    an id, which Kirana logs. If the call fails after it was sent, the error has it as `request_id`.
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
        self._url = url
        self._headers = {"x-kirana-caller": caller} if caller else {}
        self._timeout_s = timeout_s
        self._transport = transport or HttpTransport(url, direct=direct, connections=connections)

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections."""
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

        `keys` maps each key of the entity to a list with one id per row, or to one id for all rows.
        `features` are names like `group.feature`. With `provenance`, the reply also has the origin
        of each value, and the age and tier of each row. A row that is not stored has default values
        and the status "missing".

        Raise `Unknown` if the entity or a feature does not exist, `InvalidInput` if a key is wrong.
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
        """Write whole rows of a feature group, one row per key.

        `columns` maps each feature to an array, to a `Column`, or to a list in which None is null.
        `event_time` is in Unix milliseconds, one for all rows or one per row; the default is the
        current time. A row older than the stored one is not written and counts as stale.
        `schema_version` is the newest by default.

        Raise `Unknown` if the group or a feature does not exist, `InvalidInput` if a key, a value,
        a time or the schema version is wrong. In both cases, nothing is written.
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
        force: bool = False,
        timeout_s: float | None = None,
    ) -> Deleted:
        """Delete the rows of these keys from a feature group.

        `event_time` is in Unix milliseconds, one for all rows or one per row; the default is the
        current time. Newer rows stay, and count as stale. For 8 days, writes of these keys count as
        stale unless their event time is later. `force` removes rows that are more than five minutes
        in the future, which nothing could replace.

        Raise `Unknown` if the group does not exist, `InvalidInput` if a key or a time is wrong, and
        `Conflict` if `force` would have to remove such rows from Cassandra.
        """
        body = wire.features_delete(group, keys, event_time, force)
        safe = event_time is not None
        request = Request("POST", "/v1/features/delete", body=body, binary=True, safe=safe)
        return await self._call(request, timeout_s, wire.delete_reply)

    async def add_interactions(
        self, events: Sequence[Event], *, timeout_s: float | None = None
    ) -> Accepted:
        """Store events, either all or none. An event that is sent twice is stored once.

        Raise `Unknown` if an event type does not exist, `InvalidInput` if an id or a timestamp is
        wrong. The error has a field like `events[3].timestamp`.
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

        `last` is the number of events, 20 by default. Instead of `last`, give a time range: `since`
        and `until` in Unix milliseconds, both inclusive, and `limit`, the maximum number of events.

        Raise `Unknown` if the event type does not exist, `InvalidInput` if a bound is wrong.
        """
        by_user = await self.query_interactions(
            [user_id], [event], last=last, since=since, until=until, limit=limit,
            timeout_s=timeout_s,
        )  # fmt: skip
        lists = by_user.get(str(user_id), {})
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
        """Return lists of events by user and event type, with the bounds of `interactions`.

        Raise the same errors as `interactions`.
        """
        bounds = {"last": last, "since": since, "until": until, "limit": limit}
        body = wire.interactions_query(user_ids, events, bounds)
        request = Request("POST", "/v1/interactions/query", body=body, binary=True)
        return await self._call(request, timeout_s, wire.interactions_reply)

    async def forget(self, user_id: Id, *, timeout_s: float | None = None) -> int:
        """Delete all events of a user, and return their number."""
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

        `context` maps the name in the inferflow's `rows` to a list with one id per row, and other
        names to one id each. `inputs` maps each input to a list with one number per row, or to one
        number for all rows. With `top_k`, only the best rows are returned, best first. `outputs`
        adds the outputs of the models to the ranking, and `matrix` the matrix that they received.

        Raise `Unknown` if the model id does not exist, `InvalidInput` if an id or an input is
        wrong, `ModelFailed` if a model fails on the rows.
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

        `context` has the ids and values that the flow reads. With `trace`, the reply also says what
        each node did and how long it took.

        Raise `Unknown` if the flow does not exist, `InvalidInput` if a value of `context` is
        missing or wrong. If a node without a fallback fails, raise `ModelFailed` if its model
        failed, `Unavailable` if a part did not answer, `DeadlineExceeded` if the node took too
        long, `NodeError` for other errors.
        """
        body = wire.json_body({"context": dict(context), "trace": trace})
        request = Request("POST", wire.path_of("v1", "flows", name), body=body)
        return await self._call(request, timeout_s, wire.flow_reply)

    async def catalog(
        self, *, history: int | None = None, timeout_s: float | None = None
    ) -> CatalogListing:
        """Return the names of all live objects, and the newest `history` revisions (default 20)."""
        query = {} if history is None else {"history": str(history)}
        request = Request("GET", "/v1/catalog", query)
        return await self._call(request, timeout_s, wire.catalog_reply)

    async def get_object(
        self, kind: str, name: str, *, timeout_s: float | None = None
    ) -> CatalogRecord:
        """Return a live object, and its schema versions if it is a feature group.

        Raise `Unknown` if the object does not exist.
        """
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
        """Publish one object, and return the number of the newest revision.

        Raise `Unknown` if there is no such kind, `CatalogError` with all problems if the catalog
        would become invalid, `Conflict` if `expected_revision` is given and is not live, or if
        another publish came first. In these cases, nothing changes.
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
        """Delete one object, and return the number of the new revision.

        Raise `Unknown` if the object does not exist, `CatalogError` if another object needs it,
        `Conflict` if `expected_revision` is given and is not live, or if another publish came
        first. In these cases, nothing changes.
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
        """Publish several changes as one revision, and return the number of the newest revision.

        Put `objects`, and delete those that `delete` names as (kind, name).

        Raise `InvalidInput` if there are no changes, `CatalogError` if the catalog would become
        invalid, `Unknown` if an object to delete does not exist, `Conflict` if `expected_revision`
        is given and is not live, or if another publish came first. In these cases, nothing changes.
        """
        body = wire.json_body(
            {
                "objects": [dict(content) for content in objects],
                "delete": [{"kind": kind, "name": name} for kind, name in delete],
                "expected_revision": expected_revision,
            }
        )
        request = Request("POST", "/v1/catalog", body=body, safe=False)
        return await self._call(request, timeout_s, wire.revision_reply)

    async def health(self, *, timeout_s: float | None = None) -> dict[str, Any]:
        """Return the reply of `/healthz`. Raise `Unavailable` if a part is unavailable."""
        return await self._call(Request("GET", "/healthz"), timeout_s, wire.plain_reply)

    async def endpoints(self, *, timeout_s: float | None = None) -> list[str]:
        """Return the URLs of the live direct ports."""
        return await self._call(Request("GET", "/v1/endpoints"), timeout_s, wire.endpoints_reply)

    async def _call(
        self, request: Request, timeout_s: float | None, read: Callable[[bytes], T]
    ) -> T:
        request_id = new_id()
        identified = replace(request, headers={**self._headers, "x-request-id": request_id})
        try:
            return await self._reply_to(identified, timeout_s, read)
        except KiranaError as error:
            error.request_id = request_id
            raise

    async def _reply_to(
        self, request: Request, timeout_s: float | None, read: Callable[[bytes], T]
    ) -> T:
        total_s = self._timeout_s if timeout_s is None else timeout_s
        try:
            async with asyncio.timeout(total_s) as timer:
                body = await self._send(request, timer)
        except TimeoutError:
            raise DeadlineExceeded(f"no answer from {self._url} in {total_s:g} s") from None
        try:
            return read(body)
        except (DecodeError, ValueError, KeyError, TypeError, InvalidInput) as error:
            shown = body[:60].decode(errors="replace")
            raise KiranaError(f"{self._url} sent a reply that can't be decoded: {shown}") from error

    async def _send(self, request: Request, timer: asyncio.Timeout) -> bytes:
        """Send a request, at most `ATTEMPTS` times, and return the body of the reply."""
        loop = asyncio.get_running_loop()
        attempt = 0
        while True:
            attempt += 1
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
                retryable = isinstance(error, Unavailable) and not isinstance(error, StoreFull)
                again = (retryable and request.safe) or isinstance(error, Overloaded)
            if attempt == ATTEMPTS or not again:
                raise error
            await asyncio.sleep(BACKOFF_S * 2**attempt * random.uniform(0.5, 1.0))
