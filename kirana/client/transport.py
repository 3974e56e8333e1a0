"""What carries a call: HTTP, or a handle of Ray Serve. Each gives the same reply."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Request:
    """One call. `path` is encoded already; a `safe` one may be sent again.

    `headers` say whose request it is; what a transport needs it adds by itself.
    """

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    binary: bool = False
    safe: bool = True
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Response:
    status: int
    body: bytes


MAX_TIMEOUT_MS = 600_000


def timeout_ms(timeout_s: float) -> int:
    """Return a deadline that Kirana takes."""
    return min(max(int(timeout_s * 1000), 1), MAX_TIMEOUT_MS)


class NotSent(Exception):
    """Nobody has seen the request: it may be sent elsewhere, whatever it is."""


class Broken(Exception):
    """The connection broke under the request: whether it was carried out is not known."""


class Transport(Protocol):
    async def send(self, request: Request, timeout_s: float) -> Response:
        """Send once. Raises `NotSent` or `Broken`; what Kirana answers is a `Response`."""

    async def close(self) -> None: ...
