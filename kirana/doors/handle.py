"""The door for handles: one call by value, through the same edge as a request over HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kirana.edge.app import Edge
from kirana.edge.http import TIMEOUT_HEADER
from kirana.edge.protobuf import CONTENT_TYPE

DOOR = "handle"


async def call(
    edge: Edge,
    method: str,
    path: str,
    query: bytes,
    body: bytes | None,
    binary: bool,
    timeout_ms: int,
    named: Mapping[str, str],
) -> tuple[int, bytes]:
    """Return the status and the body that the same request over HTTP gets.

    `named` are headers that say whose request it is.
    """
    headers = [(TIMEOUT_HEADER, str(timeout_ms).encode())]
    headers += [
        (name.encode(), value.encode("latin-1", "replace")) for name, value in named.items()
    ]
    if binary:
        headers.append((b"accept", CONTENT_TYPE))
    if body is not None:
        headers.append((b"content-type", CONTENT_TYPE if binary else b"application/json"))
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": query,
        "headers": headers,
        "kirana.door": DOOR,
    }
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body or b""}

    async def send(message: Any) -> None:
        sent.append(message)

    await edge(scope, receive, send)
    start, end = sent
    return start["status"], end["body"]
