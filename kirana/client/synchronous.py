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
        """End the calls of other threads too: they raise `Unavailable`."""
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
        """See `AsyncClient.get_features`."""
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
        """See `AsyncClient.put_features`."""
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
        """See `AsyncClient.delete_features`."""
        call = self._client.delete_features(group, keys, event_time=event_time, timeout_s=timeout_s)
        return self._wait(call)

    def add_interactions(
        self, events: Sequence[Event], *, timeout_s: float | None = None
    ) -> Accepted:
        """See `AsyncClient.add_interactions`."""
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
        """See `AsyncClient.interactions`."""
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
        """See `AsyncClient.query_interactions`."""
        call = self._client.query_interactions(
            user_ids, events, last=last, since=since, until=until, limit=limit, timeout_s=timeout_s
        )
        return self._wait(call)

    def forget(self, user_id: Id, *, timeout_s: float | None = None) -> int:
        """See `AsyncClient.forget`."""
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
        """See `AsyncClient.infer`."""
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
        """See `AsyncClient.run_flow`."""
        return self._wait(self._client.run_flow(name, context, trace=trace, timeout_s=timeout_s))

    def catalog(
        self, *, history: int | None = None, timeout_s: float | None = None
    ) -> CatalogListing:
        """See `AsyncClient.catalog`."""
        return self._wait(self._client.catalog(history=history, timeout_s=timeout_s))

    def get_object(self, kind: str, name: str, *, timeout_s: float | None = None) -> CatalogRecord:
        """See `AsyncClient.get_object`."""
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
        """See `AsyncClient.put_object`."""
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
        """See `AsyncClient.delete_object`."""
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
        """See `AsyncClient.publish`."""
        call = self._client.publish(
            objects, delete=delete, expected_revision=expected_revision, timeout_s=timeout_s
        )
        return self._wait(call)

    def health(self, *, timeout_s: float | None = None) -> dict[str, Any]:
        """See `AsyncClient.health`."""
        return self._wait(self._client.health(timeout_s=timeout_s))

    def endpoints(self, *, timeout_s: float | None = None) -> list[str]:
        """See `AsyncClient.endpoints`."""
        return self._wait(self._client.endpoints(timeout_s=timeout_s))
