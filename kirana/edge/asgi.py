"""The edge as an ASGI application: for Serve's ingress, and for a port of a replica's own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import quote

from kirana.edge.app import Edge
from kirana.edge.exchange import Call, HungUp, Response
from kirana.edge.headers import REQUEST_ID_HEADER, read_headers
from kirana.errors import TooLarge

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

FRONT_DOOR = "serve"


class AsgiEdge:
    """Answers HTTP. With `sends_id` replies have their `x-request-id`; Serve adds one by itself."""

    def __init__(self, edge: Edge, *, door: str = FRONT_DOOR, sends_id: bool = True) -> None:
        self._edge = edge
        self._door = door
        self._sends_id = sends_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _acknowledge_lifespan(receive, send)
            return
        if scope["type"] == "websocket":
            await send({"type": "websocket.close"})  # before it was accepted: a 403
            return
        if scope["type"] != "http":
            return
        headers = read_headers(scope["headers"])

        async def body(limit: int) -> bytes:
            return await _read_body(receive, headers.content_length, limit)

        async def hung_up() -> bool:
            # the body was read: what is received after it can only be the end
            return bool((await receive())["type"] == "http.disconnect")

        call = Call(
            scope["method"],
            _path_of(scope),
            scope["query_string"],
            headers,
            self._door,
            body,
            hung_up,
        )
        try:
            response = await self._edge.answer(call)
        except HungUp:
            return
        await self._reply(response, send)

    async def _reply(self, response: Response, send: Send) -> None:
        more = response.headers
        if not self._sends_id:
            more = tuple(each for each in more if each[0] != REQUEST_ID_HEADER)
        await send(
            {
                "type": "http.response.start",
                "status": response.status,
                "headers": [
                    (b"content-type", response.content_type),
                    (b"content-length", str(len(response.body)).encode()),
                    *more,
                ],
            }
        )
        await send({"type": "http.response.body", "body": response.body})


def _path_of(scope: Scope) -> str:
    """Return the path as it was sent, so that `a%2Fb` is one segment."""
    root: str = scope.get("root_path", "")
    raw: bytes | None = scope.get("raw_path")
    if raw is None:
        return quote(scope["path"].removeprefix(root))
    return raw.decode("latin-1").partition("?")[0].removeprefix(root)


async def _read_body(receive: Receive, content_length: int, limit: int) -> bytes:
    """Return the whole body. Raises `TooLarge` as soon as it is, `HungUp` if it ends."""
    if content_length > limit:
        raise TooLarge(f"the body is over the limit of {limit} bytes")
    chunks: list[bytes] = []
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise HungUp
        chunks.append(message.get("body", b""))
        size += len(chunks[-1])
        if size > limit:
            raise TooLarge(f"the body is over the limit of {limit} bytes")
        more = message.get("more_body", False)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


async def _acknowledge_lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
