"""One route: where it is, what it takes and gives, and who answers."""

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
    """`template` has its open segments in braces; `request` and `reply` are the bodies, `query` the
    parameters of the query string.
    """

    name: str
    method: str
    template: str
    summary: str
    handler: Handler
    reply: type[msgspec.Struct]
    request: type[msgspec.Struct] | None = None
    query: type[msgspec.Struct] | None = None
    binary: bool = False
    """Whether it also takes and gives `application/x-protobuf`."""
    priority: Priority = "shopper"

    @property
    def segments(self) -> tuple[str | None, ...]:
        """The path in parts, None where it is open."""
        parts = self.template.split("/")[1:]
        return tuple(None if part.startswith("{") else part for part in parts)

    @property
    def open_segments(self) -> tuple[str, ...]:
        return tuple(p[1:-1] for p in self.template.split("/") if p.startswith("{"))
