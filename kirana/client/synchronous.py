"""The synchronous client: the asynchronous one on an event loop in a thread of its own."""

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
    """As `AsyncClient`, for plain code; several threads may share one."""

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
        """Close the connections. Calls of other threads that are under way raise `Unavailable`."""
        if self._loop.is_closed():
            return
        self._wait(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self) -> None:
        calls = asyncio.all_tasks() - {asyncio.current_task()}
        for each in calls:
            each.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        await self._client.close()

    def _wait(self, call: Coroutine[Any, Any, T]) -> T:
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

        `keys` maps each key of the entity to an id or to a list of ids. Lists must have one length;
        a single id goes with every row. `features` are `group.feature` names. With `provenance` the
        reply also says where each value came from, and how old each row is.

        Raises `Unknown` for an entity or a feature, `InvalidInput` for a key; both name the field.
        A row that is not stored has defaults, and its status says so.
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
        """Write whole rows of a feature group, one per key.

        `columns` maps each feature to an array of its dtype, or to a list, in which None is null.
        `event_time` is one time in ms, or one for each row; it is now by default. A row that is
        older than the stored one is not written, and is counted as stale. `schema_version` is the
        newest by default.

        Raises `InvalidInput` that names the column or the key. Nothing is written then.
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
        timeout_s: float | None = None,
    ) -> Deleted:
        """Delete rows of a feature group, one per key.

        An older row that arrives later does not bring it back. `event_time` is one time in ms, or
        one for each row; it is now by default.
        """
        call = self._client.delete_features(group, keys, event_time=event_time, timeout_s=timeout_s)
        return self._wait(call)

    def add_interactions(
        self, events: Sequence[Event], *, timeout_s: float | None = None
    ) -> Accepted:
        """Store events: all of them, or none. The same event sent again is stored once.

        Raises `Unknown` for an event type and `InvalidInput` for an id or a timestamp, with a field
        like `events[3].timestamp`.
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

        Give `last`, how many of the newest (20 by default), or a range of time in ms by `since` and
        `until`, both included, with at most `limit` events.
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
        """Return a list for each user and type; its bounds are those of `interactions`."""
        call = self._client.query_interactions(
            user_ids, events, last=last, since=since, until=until, limit=limit, timeout_s=timeout_s
        )
        return self._wait(call)

    def forget(self, user_id: Id, *, timeout_s: float | None = None) -> int:
        """Remove all events of a user. Return how many there were."""
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

        `context` maps its ids to one id, or to a list with one id for each row. `inputs` are
        numbers: one for all rows, or one for each. With `top_k` only the best rows come back, best
        first. `outputs` also returns each output of the models, `matrix` the matrix that they were
        given.

        Raises `Unknown` for a model id, `InvalidInput` for an id or an input, `ModelFailed` if a
        model fails on the rows.
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

        `context` holds the ids and values that the flow declares. With `trace` the reply says what
        each node did and how long it took.

        Raises `Unknown` for a flow, `InvalidInput` for a context that lacks something, `NodeError`
        if a node without a fallback failed, `DeadlineExceeded` if it was late.
        """
        return self._wait(self._client.run_flow(name, context, trace=trace, timeout_s=timeout_s))

    def catalog(
        self, *, history: int | None = None, timeout_s: float | None = None
    ) -> CatalogListing:
        """Return the names of all live objects, and the newest `history` revisions, or 20."""
        return self._wait(self._client.catalog(history=history, timeout_s=timeout_s))

    def get_object(self, kind: str, name: str, *, timeout_s: float | None = None) -> CatalogRecord:
        """Return a live object, and a group's schema versions. Raises `Unknown` for its name."""
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
        """Publish one object, and return the number of the new revision.

        With `expected_revision`, raises `Conflict` if another revision is live. Raises
        `CatalogError` with every problem if the catalog would not be valid; nothing changes then.
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
        """Remove one object, and return the number of the new revision.

        With `expected_revision`, raises `Conflict` if another revision is live. Raises
        `CatalogError` if another object needs this one, `Unknown` if it isn't there; nothing
        changes then.
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
        """Put objects and delete others, given as (kind, name), as one revision. Return its number.

        With `expected_revision`, raises `Conflict` if another revision is live. Raises
        `CatalogError` with every problem if the catalog would not be valid; nothing changes then.
        """
        call = self._client.publish(
            objects, delete=delete, expected_revision=expected_revision, timeout_s=timeout_s
        )
        return self._wait(call)

    def health(self, *, timeout_s: float | None = None) -> dict[str, Any]:
        """Return the state of each part. Raises `Unavailable` if one is down."""
        return self._wait(self._client.health(timeout_s=timeout_s))

    def endpoints(self, *, timeout_s: float | None = None) -> list[str]:
        """Return the URLs of the live direct ports."""
        return self._wait(self._client.endpoints(timeout_s=timeout_s))
