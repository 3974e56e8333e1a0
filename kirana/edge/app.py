"""The edge: finds the route of a call, reads the body, pins the revision, and has it answered.

Whatever goes wrong becomes a response with code, message and field here, and nowhere else.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import unquote

from kirana.edge.context import context_of, id_of
from kirana.edge.errors import HttpError, body_of, status_of
from kirana.edge.exchange import Call, HungUp, Request, Response
from kirana.edge.hang_up import HangUpWatch
from kirana.edge.headers import REQUEST_ID_HEADER
from kirana.edge.limits import Limits
from kirana.edge.resources import Resources
from kirana.edge.route import Route
from kirana.edge.routes import ROUTES
from kirana.errors import DeadlineExceeded, InvalidInput, KiranaError
from kirana.metrics import Counter, Histogram, Metrics
from kirana.request import current_id

logger = logging.getLogger(__name__)

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
NO_ROUTE = "none"
HUNG_UP = 499
"""Counted as the status where there is no answer: the client has hung up, or Serve has for it."""


@dataclass(slots=True)
class _Counted:
    route: str = NO_ROUTE
    status: int = HUNG_UP


class Edge:
    """One object for every door: Serve's ingress, a replica's own port, handles."""

    def __init__(
        self, resources: Resources, limits: Limits | None = None, metrics: Metrics | None = None
    ) -> None:
        self._ongoing = 0
        self._resources = resources
        self._limits = limits or Limits()
        self._metrics = metrics or Metrics()
        self._routes: dict[tuple[str | None, ...], list[Route]] = defaultdict(list)
        self._found: dict[tuple[str, str], tuple[Route, tuple[str, ...]]] = {}
        for route in ROUTES:
            self._routes[route.segments[:FIXED_SEGMENTS]].append(route)

    async def answer(self, call: Call) -> Response:
        """Return the response to a call, whatever becomes of it. Raises only `HungUp`."""
        began = time.perf_counter()
        id = id_of(call.headers)
        current_id.set(id)
        self._ongoing += 1
        counted = _Counted()
        try:
            response = await self._respond(call, id, counted)
            counted.status = response.status
        finally:
            self._ongoing -= 1
            took_s = time.perf_counter() - began
            self._metrics.count(REQUESTS, counted.route, call.door, str(counted.status))
            self._metrics.observe(REQUEST_SECONDS, took_s, counted.route, call.door)
        headers = ((REQUEST_ID_HEADER, id.encode()), *response.headers)
        return Response(response.body, response.status, response.content_type, headers)

    async def _respond(self, call: Call, id: str, counted: _Counted) -> Response:
        try:
            route, parameters = self._find(call.method, call.path)
            counted.route = route.name
            return await self._handle(route, parameters, call, id)
        except HungUp:
            raise
        except HttpError as error:
            return Response(body_of(error), error.status, headers=error.headers)
        except KiranaError as error:
            status = status_of(error)
            if status >= 500:
                cause = error.__cause__
                logger.warning("%s %s: %s", call.method, call.path, error, exc_info=cause)
            return Response(body_of(error), status)
        except Exception:
            logger.exception("%s %s failed", call.method, call.path)
            own = KiranaError(
                "this is an error in Kirana itself: its log has this request id and the cause"
            )
            return Response(body_of(own), 500)

    async def _handle(
        self, route: Route, parameters: tuple[str, ...], call: Call, id: str
    ) -> Response:
        limits = self._limits
        if self._ongoing > limits.max_ongoing:
            raise HttpError(
                503,
                "overloaded",
                f"more than {limits.max_ongoing} requests are under way in this replica",
                ((b"retry-after", b"1"),),
            )
        headers = call.headers
        binary = headers.binary(call.method, binary_route=route.binary)
        binary_reply = headers.binary_reply(binary_route=route.binary)
        timeout_ms = headers.timeout_ms(limits.timeout_ms)
        deadline = time.monotonic() + timeout_ms / 1000
        try:
            async with asyncio.timeout(timeout_ms / 1000):
                body = await call.read_body(limits.max_body_bytes)
                revision = self._resources.live.revision
                context = context_of(headers, id, revision, deadline, route.priority)
                request = Request(
                    parameters, call.query, headers, body, context, binary, binary_reply
                )
                async with HangUpWatch(call.hung_up):
                    return await route.handler(request, self._resources)
        except TimeoutError:
            raise DeadlineExceeded(f"no answer in {timeout_ms} ms") from None

    def _find(self, method: str, path: str) -> tuple[Route, tuple[str, ...]]:
        """Return the route of a request and its open segments: paths come again and again."""
        if len(path) > LONGEST_KEPT:
            return self._match(method, path)
        found = self._found.get((method, path))
        if found is None:
            if len(self._found) >= MAX_FOUND:
                self._found.clear()
            found = self._found[method, path] = self._match(method, path)
        return found

    def _match(self, method: str, path: str) -> tuple[Route, tuple[str, ...]]:
        segments = _segments_of(path)
        allowed: list[str] = []
        for route in self._routes.get(segments[:FIXED_SEGMENTS], ()):
            if _fits(route.segments, segments):
                if route.method == method:
                    pairs = zip(route.segments, segments, strict=True)
                    return route, tuple(value for name, value in pairs if name is None)
                allowed.append(route.method)
        if allowed:
            methods = ", ".join(allowed)
            raise HttpError(
                405,
                "method_not_allowed",
                f"{method} is not allowed here, {methods} is",
                ((b"allow", methods.encode()),),
            )
        raise HttpError(404, "not_found", "there is no such route: see /openapi.json")


def _fits(template: Sequence[str | None], segments: Sequence[str]) -> bool:
    return len(segments) == len(template) and all(
        mine is None or mine == theirs for mine, theirs in zip(template, segments, strict=True)
    )


def _segments_of(path: str) -> tuple[str, ...]:
    """Split a path, then decode each segment. Raises `InvalidInput` for one that is not UTF-8."""
    try:
        return tuple(unquote(each, errors="strict") for each in path.split("/")[1:])
    except UnicodeDecodeError:
        raise InvalidInput("the path is not UTF-8", field="path") from None
