"""The door for handles: one call by value, through the same edge as a request over HTTP."""

from __future__ import annotations

from collections.abc import Mapping

from kirana.edge.app import Edge
from kirana.edge.exchange import JSON, Call
from kirana.edge.headers import TIMEOUT_HEADER, read_headers
from kirana.edge.protobuf import CONTENT_TYPE
from kirana.errors import TooLarge

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
        headers.append((b"content-type", CONTENT_TYPE if binary else JSON))
    content = body or b""

    async def whole(limit: int) -> bytes:
        if len(content) > limit:
            raise TooLarge(f"the body is over the limit of {limit} bytes")
        return content

    response = await edge.answer(Call(method, path, query, read_headers(headers), DOOR, whole))
    return response.status, response.body
