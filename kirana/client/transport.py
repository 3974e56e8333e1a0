"""The interface of transports. They carry requests over HTTP or through a Ray Serve handle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Request:
    """One request to Kirana.

    `path` is already percent-encoded. `binary` means that the body, if any, and the reply are
    Protobuf. Errors are JSON in any case. A `safe` request may be sent again even if Kirana may
    have processed it. `headers` has the id of the request, and the name of the caller if there is
    one. A transport adds the other headers that it needs.
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
    """The status and body of a reply."""

    status: int
    body: bytes


MAX_TIMEOUT_MS = 600_000
"""The longest timeout that Kirana accepts."""


def timeout_ms(timeout_s: float) -> int:
    """Return a timeout in whole milliseconds, from 1 to `MAX_TIMEOUT_MS`."""
    return min(max(int(timeout_s * 1000), 1), MAX_TIMEOUT_MS)


class NotSent(Exception):
    """The request did not reach Kirana, so it may be sent again even if it is not safe."""


class Broken(Exception):
    """The connection broke during the request, which Kirana may or may not have processed."""


class Transport(Protocol):
    """Carries requests to Kirana, and the replies back."""

    async def send(self, request: Request, timeout_s: float) -> Response:
        """Send a request once, and return the reply, whatever its status.

        `timeout_s` is the time that Kirana has to answer. Raise `NotSent` or `Broken` if there is
        no reply.
        """

    async def close(self) -> None:
        """Close all connections."""
