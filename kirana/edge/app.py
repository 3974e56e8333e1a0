"""The edge: finds the route of a call, reads the body, pins a revision and runs the handler.

Errors become responses here, with a code, a message and a field.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import unquote

from kirana.admission import Admission
from kirana.edge.context import context_of, id_of
from kirana.edge.disconnect import DisconnectWatch
from kirana.edge.errors import HttpError, body_of, headers_of, status_of
from kirana.edge.exchange import Call, ClientDisconnected, Request, Response
from kirana.edge.headers import REQUEST_ID_HEADER
from kirana.edge.limits import HARD_LIMIT, Limits
from kirana.edge.resources import Resources
from kirana.edge.route import Route
from kirana.edge.routes import ROUTES
from kirana.errors import DeadlineExceeded, InvalidInput, KiranaError, Overloaded
from kirana.metrics import Counter, Histogram, Metrics
from kirana.request import current_id

logger = logging.getLogger(__name__)

LITERAL_SEGMENTS = 2
"""Every route starts with this many literal segments, or consists of fewer.

They are the keys of the route table.
"""

MAX_WAITING_BYTES = 256 << 20
"""The maximum size of the bodies of all requests that wait in a replica."""

MAX_CACHED_PATHS = 1_024
MAX_CACHED_PATH_CHARS = 256
"""Bounds of the route cache: entries, and characters per path. Clients choose the paths."""

REQUESTS = Counter("kirana_requests", "Requests at the edge.", ("route", "door", "status"))
REQUEST_SECONDS = Histogram(
    "kirana_request_seconds",
    "How long requests took at the edge.",
    ("route", "door"),
    (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0),
)
NO_ROUTE = "none"
DISCONNECTED = 499
"""The status counted for calls that the client or Serve ended before they had a response."""


@dataclass(slots=True)
class _Outcome:
    """The route and status that the metrics count for one call."""

    route: str = NO_ROUTE
    status: int = DISCONNECTED


class Edge:
    """The edge of one replica, shared by its doors: the front door, the direct port and handles."""

    def __init__(
        self, resources: Resources, limits: Limits | None = None, metrics: Metrics | None = None
    ) -> None:
        self._ongoing = 0
        self._waiting_bytes = 0
        self._resources = resources
        self._limits = limits or Limits()
        self._metrics = metrics or Metrics()
        self._admission = Admission(self._metrics)
        self._routes: dict[tuple[str | None, ...], list[Route]] = defaultdict(list)
        self._cached_routes: dict[tuple[str, str], tuple[Route, tuple[str, ...]]] = {}
        for route in ROUTES:
            self._routes[route.segments[:LITERAL_SEGMENTS]].append(route)

    async def answer(self, call: Call) -> Response:
        """Return the response to a call; an error becomes a response too.

        Raise `ClientDisconnected` if the door reports that the client has disconnected.
        """
        started = time.perf_counter()
        id = id_of(call.headers)
        current_id.set(id)
        self._ongoing += 1
        outcome = _Outcome()
        try:
            response = await self._respond(call, id, outcome)
            outcome.status = response.status
        finally:
            self._ongoing -= 1
            took_s = time.perf_counter() - started
            self._metrics.count(REQUESTS, outcome.route, call.door, str(outcome.status))
            self._metrics.observe(REQUEST_SECONDS, took_s, outcome.route, call.door)
        headers = ((REQUEST_ID_HEADER, id.encode()), *response.headers)
        return Response(response.body, response.status, response.content_type, headers)

    async def _respond(self, call: Call, id: str, outcome: _Outcome) -> Response:
        try:
            route, parameters = self._find(call.method, call.path)
            outcome.route = route.name
            return await self._handle(route, parameters, call, id)
        except ClientDisconnected:
            raise
        except KiranaError as error:
            status = status_of(error)
            if status >= 500 and not isinstance(error, Overloaded):
                # Under overload, a line per refused request would be more load.
                cause = error.__cause__
                logger.warning("%s %s: %s", call.method, call.path, error, exc_info=cause)
            return Response(body_of(error), status, headers=headers_of(error))
        except Exception:
            logger.exception("%s %s failed", call.method, call.path)
            internal = KiranaError("internal error: search Kirana's log for the request id")
            return Response(body_of(internal), 500)

    async def _handle(
        self, route: Route, parameters: tuple[str, ...], call: Call, id: str
    ) -> Response:
        limits = self._limits
        headers = call.headers
        binary = headers.binary(call.method, binary_route=route.binary)
        binary_reply = headers.binary_reply(binary_route=route.binary)
        timeout_ms = headers.timeout_ms(limits.timeout_ms)
        deadline = time.monotonic() + timeout_ms / 1000
        if route.queued:
            self._check_ongoing()
            self._admission.arrive(deadline)
        try:
            async with asyncio.timeout(timeout_ms / 1000):
                body = await call.read_body(limits.max_body_bytes)
                async with DisconnectWatch(call.disconnected):
                    if route.queued:
                        await self._enter(len(body), deadline)
                    revision = self._resources.live.revision
                    context = context_of(headers, id, revision, deadline, route.priority)
                    request = Request(
                        parameters, call.query, headers, body, context, binary, binary_reply
                    )
                    return await route.handler(request, self._resources)
        except TimeoutError:
            raise DeadlineExceeded(f"no answer in {timeout_ms} ms") from None

    def _check_ongoing(self) -> None:
        """Raise `Overloaded` if too many requests wait or run.

        Refusals are limited, because they take time from work. A request that is not refused for
        this reason waits, up to `HARD_LIMIT` times the maximum.
        """
        most = self._limits.max_ongoing
        if self._ongoing > most and (
            self._ongoing > HARD_LIMIT * most or self._admission.may_refuse()
        ):
            raise Overloaded(
                f"more than {most} requests are waiting or in progress in this replica"
            )

    async def _enter(self, body_bytes: int, deadline: float) -> None:
        """Wait in the queue. Raise `Overloaded` if the bodies of waiting requests are too large."""
        if self._waiting_bytes + body_bytes > MAX_WAITING_BYTES and self._waiting_bytes:
            raise Overloaded(
                f"the requests that wait in this replica have more than {MAX_WAITING_BYTES >> 20} "
                "MiB"
            )
        self._waiting_bytes += body_bytes
        try:
            await self._admission.enter(deadline)
        finally:
            self._waiting_bytes -= body_bytes

    def _find(self, method: str, path: str) -> tuple[Route, tuple[str, ...]]:
        """Return the route of a request, and the values of the route's open segments.

        Results for paths of at most `MAX_CACHED_PATH_CHARS` characters are cached. Raise what
        `_match` raises.
        """
        if len(path) > MAX_CACHED_PATH_CHARS:
            return self._match(method, path)
        entry = self._cached_routes.get((method, path))
        if entry is None:
            if len(self._cached_routes) >= MAX_CACHED_PATHS:
                self._cached_routes.clear()
            entry = self._cached_routes[method, path] = self._match(method, path)
        return entry

    def _match(self, method: str, path: str) -> tuple[Route, tuple[str, ...]]:
        """Return the same as `_find`, without the cache.

        Raise `HttpError` if no route matches, `InvalidInput` if the path is not UTF-8.
        """
        segments = _segments_of(path)
        allowed: list[str] = []
        for route in self._routes.get(segments[:LITERAL_SEGMENTS], ()):
            if _matches(route.segments, segments):
                if route.method == method:
                    pairs = zip(route.segments, segments, strict=True)
                    return route, tuple(value for literal, value in pairs if literal is None)
                allowed.append(route.method)
        if allowed:
            methods = ", ".join(allowed)
            raise HttpError(
                405,
                "method_not_allowed",
                f"{method} is not allowed on this path: use {methods}",
                ((b"allow", methods.encode()),),
            )
        raise HttpError(404, "not_found", "there is no such route: see /openapi.json")


def _matches(template: Sequence[str | None], segments: Sequence[str]) -> bool:
    return len(segments) == len(template) and all(
        literal is None or literal == segment
        for literal, segment in zip(template, segments, strict=True)
    )


def _segments_of(path: str) -> tuple[str, ...]:
    """Split a path, and percent-decode its segments. Raise `InvalidInput` if one is not UTF-8."""
    try:
        return tuple(unquote(segment, errors="strict") for segment in path.split("/")[1:])
    except UnicodeDecodeError:
        raise InvalidInput("the path is not UTF-8", field="path") from None
