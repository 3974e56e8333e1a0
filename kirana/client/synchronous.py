"""The synchronous client. It runs an event loop in its own thread."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, TypeVar

from kirana.client.asynchronous import DEFAULT_TIMEOUT_S, DEFAULT_URL, AsyncClient
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
from kirana.client.wire import Id, Ids, Times, Values
from kirana.codecs.rows import Column
from kirana.errors import Unavailable
from kirana.interactions import Event

T = TypeVar("T")


class Client:
    """Client for synchronous code, over HTTP. Threads may share one client.

    A call with all its attempts takes at most `timeout_s` seconds. If the connection breaks or a
    replica is unavailable, the call is sent again, at most three times. Changes of the catalog,
    `forget`, and writes or deletes of features without `event_time` are sent again only if Kirana
    has not begun to process them. With `direct`, a call goes to the less busy of two random direct
    ports, and to `url` if no direct port can be used. `connections` is the maximum number of
    connections per address. `caller` names the calling program. The constructor raises
    `InvalidInput` if `url` is not an HTTP URL.

    All methods raise errors of `kirana.errors`. Besides those that they name, they may raise
    `Unavailable`, `DeadlineExceeded`, and `TooLarge` if a request exceeds a limit. All attempts of
    a call have the same id. Kirana logs it, and an error of an attempt has it as `request_id`.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        direct: bool = True,
        connections: int = 64,
        caller: str = "",
    ) -> None:
        self._client = AsyncClient(
            url, timeout_s=timeout_s, direct=direct, connections=connections, caller=caller
        )
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="kirana", daemon=True)
        self._thread.start()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections. Calls in progress in other threads raise `Unavailable`.

        The client can't be used afterwards.
        """
        if self._loop.is_closed():
            return
        self._wait(self._cancel_and_close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _cancel_and_close(self) -> None:
        """Cancel all calls in progress, then close the connections."""
        calls = asyncio.all_tasks() - {asyncio.current_task()}
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        await self._client.close()

    def _wait(self, call: Coroutine[Any, Any, T]) -> T:
        """Run a call on the event loop of the client's thread, and block until it returns."""
        future = asyncio.run_coroutine_threadsafe(call, self._loop)
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            raise Unavailable("the client was closed") from None
        except BaseException:
            future.cancel()
            raise

    def get_features(
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
        call = self._client.get_features(
            entity, keys, features, provenance=provenance, timeout_s=timeout_s
        )
        return self._wait(call)

    def put_features(
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
        call = self._client.put_features(
            group, keys, columns, event_time=event_time, schema_version=schema_version,
            timeout_s=timeout_s,
        )  # fmt: skip
        return self._wait(call)

    def delete_features(
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
        call = self._client.delete_features(
            group, keys, event_time=event_time, force=force, timeout_s=timeout_s
        )
        return self._wait(call)

    def add_interactions(
        self, events: Sequence[Event], *, timeout_s: float | None = None
    ) -> Accepted:
        """Store events, either all or none. An event that is sent twice is stored once.

        Raise `Unknown` if an event type does not exist, `InvalidInput` if an id or a timestamp is
        wrong. The error has a field like `events[3].timestamp`.
        """
        return self._wait(self._client.add_interactions(events, timeout_s=timeout_s))

    def interactions(
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
        call = self._client.interactions(
            user_id, event, last=last, since=since, until=until, limit=limit, timeout_s=timeout_s
        )
        return self._wait(call)

    def query_interactions(
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
        call = self._client.query_interactions(
            user_ids, events, last=last, since=since, until=until, limit=limit, timeout_s=timeout_s
        )
        return self._wait(call)

    def forget(self, user_id: Id, *, timeout_s: float | None = None) -> int:
        """Delete all events of a user, and return their number."""
        return self._wait(self._client.forget(user_id, timeout_s=timeout_s))

    def infer(
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
        call = self._client.infer(
            model_id, context, inputs=inputs, top_k=top_k, outputs=outputs, matrix=matrix,
            timeout_s=timeout_s,
        )  # fmt: skip
        return self._wait(call)

    def run_flow(
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
        return self._wait(self._client.run_flow(name, context, trace=trace, timeout_s=timeout_s))

    def catalog(
        self, *, history: int | None = None, timeout_s: float | None = None
    ) -> CatalogListing:
        """Return the names of all live objects, and the newest `history` revisions (default 20)."""
        return self._wait(self._client.catalog(history=history, timeout_s=timeout_s))

    def get_object(self, kind: str, name: str, *, timeout_s: float | None = None) -> CatalogRecord:
        """Return a live object, and its schema versions if it is a feature group.

        Raise `Unknown` if the object does not exist.
        """
        return self._wait(self._client.get_object(kind, name, timeout_s=timeout_s))

    def put_object(
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
        call = self._client.put_object(
            kind, name, content, expected_revision=expected_revision, timeout_s=timeout_s
        )
        return self._wait(call)

    def delete_object(
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
        call = self._client.delete_object(
            kind, name, expected_revision=expected_revision, timeout_s=timeout_s
        )
        return self._wait(call)

    def publish(
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
        call = self._client.publish(
            objects, delete=delete, expected_revision=expected_revision, timeout_s=timeout_s
        )
        return self._wait(call)

    def health(self, *, timeout_s: float | None = None) -> dict[str, Any]:
        """Return the reply of `/healthz`. Raise `Unavailable` if a part is unavailable."""
        return self._wait(self._client.health(timeout_s=timeout_s))

    def endpoints(self, *, timeout_s: float | None = None) -> list[str]:
        """Return the URLs of the live direct ports."""
        return self._wait(self._client.endpoints(timeout_s=timeout_s))
