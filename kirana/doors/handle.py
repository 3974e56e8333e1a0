"""The door for Ray Serve handles: calls go through the same edge as requests over HTTP."""

from __future__ import annotations

from collections.abc import Mapping

from kirana.edge.app import Edge
from kirana.edge.exchange import JSON, Call
from kirana.edge.headers import TIMEOUT_HEADER, read_headers
from kirana.edge.protobuf import CONTENT_TYPE
from kirana.errors import TooLarge

DOOR = "handle"
"""The label of calls by handle in metrics."""


async def call(
    edge: Edge,
    method: str,
    path: str,
    query: bytes,
    body: bytes | None,
    binary: bool,
    timeout_ms: int,
    headers: Mapping[str, str],
) -> tuple[int, bytes]:
    """Return the status and body of the response that the same request over HTTP would get.

    `binary` means that the body, if any, and the reply are Protobuf. Errors are JSON in any case.
    `headers` has the id of the request, and the name of the caller if there is one.
    """
    pairs = [(TIMEOUT_HEADER, str(timeout_ms).encode())]
    pairs += [
        (name.encode(), value.encode("latin-1", "replace")) for name, value in headers.items()
    ]
    if binary:
        pairs.append((b"accept", CONTENT_TYPE))
    if body is not None:
        pairs.append((b"content-type", CONTENT_TYPE if binary else JSON))
    content = body or b""

    async def read_body(limit: int) -> bytes:
        if len(content) > limit:
            raise TooLarge(f"the body has {len(content)} bytes, the limit is {limit}")
        return content

    response = await edge.answer(Call(method, path, query, read_headers(pairs), DOOR, read_body))
    return response.status, response.body
