"""The edge as an ASGI application, for Serve's ingress and for the direct port."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import quote

from kirana.edge.app import Edge
from kirana.edge.exchange import Call, ClientDisconnected, Response
from kirana.edge.headers import REQUEST_ID_HEADER, read_headers
from kirana.errors import TooLarge

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

FRONT_DOOR = "serve"
"""The label of Serve's front door in metrics."""


class AsgiEdge:
    """ASGI application that answers HTTP requests through an edge.

    `door` labels the metrics. With `sends_id`, responses have the header `x-request-id`. Serve
    adds this header itself, so its ingress sets `sends_id` to False.
    """

    def __init__(self, edge: Edge, *, door: str = FRONT_DOOR, sends_id: bool = True) -> None:
        self._edge = edge
        self._door = door
        self._sends_id = sends_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer an HTTP request, acknowledge lifespan events or reject a WebSocket.

        Send nothing if the client disconnects before the response is ready. Ignore other scopes.
        """
        if scope["type"] == "lifespan":
            await _acknowledge_lifespan(receive, send)
            return
        if scope["type"] == "websocket":
            # Closing a WebSocket before accepting it makes the server respond with 403.
            await send({"type": "websocket.close"})
            return
        if scope["type"] != "http":
            return
        headers = read_headers(scope["headers"])

        async def body(limit: int) -> bytes:
            return await _read_body(receive, headers.content_length, limit)

        async def disconnected() -> bool:
            # After the body, the only message that the server still sends is the disconnect.
            return bool((await receive())["type"] == "http.disconnect")

        call = Call(
            scope["method"],
            _path_of(scope),
            scope["query_string"],
            headers,
            self._door,
            body,
            disconnected,
        )
        try:
            response = await self._edge.answer(call)
        except ClientDisconnected:
            return
        await self._reply(response, send)

    async def _reply(self, response: Response, send: Send) -> None:
        headers = response.headers
        if not self._sends_id:
            headers = tuple(header for header in headers if header[0] != REQUEST_ID_HEADER)
        await send(
            {
                "type": "http.response.start",
                "status": response.status,
                "headers": [
                    (b"content-type", response.content_type),
                    (b"content-length", str(len(response.body)).encode()),
                    *headers,
                ],
            }
        )
        await send({"type": "http.response.body", "body": response.body})


def _path_of(scope: Scope) -> str:
    """Return the path below the root path, percent-encoded.

    In `raw_path`, the segment `a%2Fb` is still encoded. A server that sends no `raw_path` has
    decoded the segment already, so it becomes two segments.
    """
    root: str = scope.get("root_path", "")
    raw: bytes | None = scope.get("raw_path")
    if raw is None:
        return quote(scope["path"].removeprefix(root))
    return raw.decode("latin-1").partition("?")[0].removeprefix(root)


async def _read_body(receive: Receive, content_length: int, limit: int) -> bytes:
    """Return the whole body.

    Raise `TooLarge` as soon as the body is known to exceed `limit` bytes. Raise
    `ClientDisconnected` if the client disconnects.
    """
    if content_length > limit:
        raise TooLarge(f"the body has {content_length} bytes, the limit is {limit}")
    chunks: list[bytes] = []
    size, more_body = 0, True
    while more_body:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnected
        chunks.append(message.get("body", b""))
        size += len(chunks[-1])
        if size > limit:
            raise TooLarge(f"the body exceeds the limit of {limit} bytes")
        more_body = message.get("more_body", False)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


async def _acknowledge_lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
