"""The ASGI application: finds the route, reads the body, pins the revision, replies.

Whatever goes wrong becomes a reply with code, message and field here, and nowhere else.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from kirana.catalog.changes import CatalogPublisher
from kirana.catalog.revisions import CatalogSource, LiveRevision, Revisions
from kirana.catalog.snapshot import Catalog
from kirana.edge.context import context_of, id_of
from kirana.edge.errors import HttpError, body_of, status_of
from kirana.edge.handlers.catalog import CatalogHandlers
from kirana.edge.handlers.endpoints import EndpointHandlers, LiveEndpoints, NoEndpoints
from kirana.edge.handlers.features import FeatureHandlers
from kirana.edge.handlers.health import HealthHandlers, Unhealthy
from kirana.edge.handlers.interactions import InteractionHandlers
from kirana.edge.handlers.ranking import RankingHandlers
from kirana.edge.hang_up import HangUpWatch
from kirana.edge.http import (
    REQUEST_ID_HEADER,
    Disconnected,
    Headers,
    HttpRequest,
    Receive,
    Scope,
    Send,
    path_segments,
    read_body,
    read_headers,
    reply,
)
from kirana.edge.limits import Limits
from kirana.edge.openapi import openapi_document
from kirana.edge.routes import ROUTES, RouteSpec
from kirana.edge.selection import Selections
from kirana.errors import DeadlineExceeded, KiranaError
from kirana.features.part import FEATURES
from kirana.flow.part import FLOWS
from kirana.inferflow.part import INFERFLOW
from kirana.interactions.part import INTERACTIONS
from kirana.metrics import Counter, Histogram, Metrics
from kirana.part import Parts
from kirana.request import current_id

logger = logging.getLogger(__name__)

Handler = Callable[[HttpRequest], Awaitable[bytes]]

FIXED_SEGMENTS = 2
"""Of every route, so many segments at its start are not open, or all that it has."""

MAX_FOUND = 1_024
LONGEST_KEPT = 256
"""So many paths are known to lead to a route, of so many characters: clients choose them."""

REQUESTS = Counter("kirana_requests", "Requests at the edge.", ("route", "door", "status"))
REQUEST_SECONDS = Histogram(
    "kirana_request_seconds",
    "How long requests took at the edge.",
    ("route", "door"),
    (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0),
)

FRONT_DOOR = "serve"
NO_ROUTE = "none"


@dataclass(slots=True)
class _Answered:
    """What became of a request. Without an answer its client has hung up, or Serve has for it."""

    route: str = NO_ROUTE
    status: int = 499


@dataclass(frozen=True, slots=True)
class _Route:
    spec: RouteSpec
    segments: tuple[str | None, ...]
    handler: Handler

    def matches(self, segments: Sequence[str]) -> bool:
        return len(segments) == len(self.segments) and all(
            mine is None or mine == theirs
            for mine, theirs in zip(self.segments, segments, strict=True)
        )


class Edge:
    """One object for every door: Serve's ingress, and a replica's own port."""

    def __init__(
        self,
        parts: Parts,
        live: LiveRevision,
        source: CatalogSource,
        limits: Limits,
        *,
        publisher: CatalogPublisher | None = None,
        endpoints: LiveEndpoints | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        self._ongoing = 0
        self._metrics = metrics or Metrics()
        self._live = live
        self._limits = limits
        self._catalogs: Revisions[Catalog] = Revisions(source, lambda catalog: catalog)
        features = FeatureHandlers(parts[FEATURES], Revisions(source, Selections), limits)
        interactions = InteractionHandlers(parts[INTERACTIONS], limits)
        ranking = RankingHandlers(parts[FLOWS], parts[INFERFLOW])
        catalog = CatalogHandlers(self._catalogs, live, publisher)
        health = HealthHandlers(parts, live)
        handlers: dict[str, Handler] = {
            "features_get": features.get,
            "features_put": features.put,
            "features_delete": features.delete,
            "interactions_post": interactions.post,
            "interactions_get": interactions.get,
            "interactions_query": interactions.query,
            "interactions_delete": interactions.delete,
            "flow_run": ranking.run_flow,
            "infer": ranking.infer,
            "catalog_list": catalog.list,
            "catalog_get": catalog.get,
            "catalog_put": catalog.put,
            "catalog_delete": catalog.delete,
            "catalog_post": catalog.post,
            "endpoints": EndpointHandlers(endpoints or NoEndpoints()).get,
            "healthz": health.get,
            "openapi": self._openapi,
        }
        self._routes: dict[tuple[str | None, ...], list[_Route]] = defaultdict(list)
        self._found: dict[tuple[Any, ...], tuple[_Route, tuple[str, ...]]] = {}
        for each in ROUTES:
            route = _Route(each, each.segments, handlers[each.name])
            self._routes[route.segments[:FIXED_SEGMENTS]].append(route)

    async def _openapi(self, request: HttpRequest) -> bytes:
        return openapi_document()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _acknowledge_lifespan(receive, send)
            return
        if scope["type"] == "websocket":
            await send({"type": "websocket.close"})  # before it was accepted: a 403
            return
        if scope["type"] != "http":
            return
        began = time.perf_counter()
        headers = read_headers(scope)
        id = id_of(headers)
        current_id.set(id)
        self._ongoing += 1
        answered = _Answered()
        try:
            await self._reply(scope, receive, send, headers, id, answered)
        finally:
            self._ongoing -= 1
            door = scope.get("kirana.door", FRONT_DOOR)
            took_s = time.perf_counter() - began
            self._metrics.count(REQUESTS, answered.route, door, str(answered.status))
            self._metrics.observe(REQUEST_SECONDS, took_s, answered.route, door)

    async def _reply(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        headers: Headers,
        id: str,
        answered: _Answered,
    ) -> None:
        """Answer one request, and note what became of it."""
        status, binary = 200, False
        more: tuple[tuple[bytes, bytes], ...] = ()
        try:
            route, parameters = self._find(scope)
            answered.route = route.spec.name
            body, binary = await self._answer(route, parameters, scope, receive, headers, id)
        except Disconnected:
            return
        except Unhealthy as error:
            status, body = error.status, error.body
        except HttpError as error:
            status, body, more = error.status, body_of(error), error.headers
        except KiranaError as error:
            status, body = status_of(error), body_of(error)
            if status >= 500:
                cause = error.__cause__
                logger.warning("%s %s: %s", scope["method"], scope["path"], error, exc_info=cause)
        except Exception:
            logger.exception("%s %s failed", scope["method"], scope["path"])
            status = 500
            body = body_of(KiranaError("this is an error of Kirana itself; its log says more"))
        answered.status = status
        if not scope.get("kirana.door_sends_id"):
            more = ((REQUEST_ID_HEADER, id.encode()), *more)
        await reply(send, status, body, more, binary=binary)

    async def _answer(
        self,
        route: _Route,
        parameters: tuple[str, ...],
        scope: Scope,
        receive: Receive,
        headers: Headers,
        id: str,
    ) -> tuple[bytes, bool]:
        """Return the body of the reply, and whether it is Proto3."""
        if self._ongoing > self._limits.max_ongoing:
            raise HttpError(
                503,
                "overloaded",
                f"more than {self._limits.max_ongoing} requests are under way in this replica",
                ((b"retry-after", b"1"),),
            )
        spec = route.spec
        binary = headers.binary(scope["method"], binary_route=spec.binary)
        binary_reply = headers.binary_reply(binary_route=spec.binary)
        timeout_ms = headers.timeout_ms(self._limits.timeout_ms)
        deadline = time.monotonic() + timeout_ms / 1000
        try:
            async with asyncio.timeout(timeout_ms / 1000):
                body = await read_body(receive, headers.content_length, self._limits.max_body_bytes)
                context = context_of(headers, id, self._live.revision, deadline, spec.priority)
                request = HttpRequest(
                    parameters, scope["query_string"], body, context, binary, binary_reply
                )
                async with HangUpWatch(receive):
                    return await route.handler(request), binary_reply
        except TimeoutError:
            raise DeadlineExceeded(f"no answer in {timeout_ms} ms") from None

    def _find(self, scope: Scope) -> tuple[_Route, tuple[str, ...]]:
        """Return the route of a request and its open segments: paths come again and again."""
        if len(scope["path"]) > LONGEST_KEPT:
            return self._match(scope)
        asked = (scope["method"], scope.get("raw_path"), scope.get("root_path"), scope["path"])
        found = self._found.get(asked)
        if found is None:
            if len(self._found) >= MAX_FOUND:
                self._found.clear()
            found = self._found[asked] = self._match(scope)
        return found

    def _match(self, scope: Scope) -> tuple[_Route, tuple[str, ...]]:
        segments = path_segments(scope)
        allowed: list[str] = []
        for route in self._routes.get(segments[:FIXED_SEGMENTS], ()):
            if route.matches(segments):
                if route.spec.method == scope["method"]:
                    pairs = zip(route.segments, segments, strict=True)
                    return route, tuple(value for name, value in pairs if name is None)
                allowed.append(route.spec.method)
        if allowed:
            methods = ", ".join(allowed)
            raise HttpError(
                405,
                "method_not_allowed",
                f"{scope['method']} is not allowed here, {methods} is",
                ((b"allow", methods.encode()),),
            )
        raise HttpError(404, "not_found", "there is no such route: see /openapi.json")


async def _acknowledge_lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
