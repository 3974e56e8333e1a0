"""The declaration of a route: method, path, types of its messages, and handler."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import msgspec

from kirana.edge.exchange import Request, Response
from kirana.edge.resources import Resources
from kirana.request import Priority

Handler = Callable[[Request, Resources], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Route:
    """One route.

    `template` is the path. Its open segments, which match any text, are in braces. `request` and
    `reply` are the types of the bodies, and `query` is the type of the query string. `priority` is
    the priority of the route's requests.
    """

    name: str
    method: str
    template: str
    summary: str
    handler: Handler
    reply: type[msgspec.Struct]
    request: type[msgspec.Struct] | None = None
    query: type[msgspec.Struct] | None = None
    accepted: type[msgspec.Struct] | None = None
    """The type of the body of a response with the status 202, if there is one."""
    binary: bool = False
    """Whether the route also accepts and returns `application/x-protobuf`."""
    priority: Priority = "shopper"
    queued: bool = True
    """Whether requests wait for their turn, and are refused when the replica is overloaded."""

    @property
    def segments(self) -> tuple[str | None, ...]:
        """The segments of the path, None for an open segment."""
        parts = self.template.split("/")[1:]
        return tuple(None if part.startswith("{") else part for part in parts)

    @property
    def open_segments(self) -> tuple[str, ...]:
        """The names of the open segments, without braces."""
        return tuple(p[1:-1] for p in self.template.split("/") if p.startswith("{"))
