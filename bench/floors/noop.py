"""A Serve application that only parses the body, as Kirana does, and sends a constant reply."""

from __future__ import annotations

from typing import Any

import msgspec
from ray import serve

from kirana.deployments.options import OPTIONS
from kirana.edge.messages import Infer

DECODER = msgspec.json.Decoder(Infer)


async def body_of(receive: Any) -> bytes:
    chunks, more_body = [], True
    while more_body:
        message = await receive()
        chunks.append(message.get("body", b""))
        more_body = message.get("more_body", False)
    return b"".join(chunks)


def headers_of(reply: bytes) -> list[tuple[bytes, bytes]]:
    return [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(reply)).encode()),
    ]


class Constant:
    """An ASGI application without a framework, which sends a constant reply."""

    def __init__(self, reply: bytes) -> None:
        self._reply = reply
        self._headers = headers_of(reply)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        DECODER.decode(await body_of(receive))
        await send({"type": "http.response.start", "status": 200, "headers": self._headers})
        await send({"type": "http.response.body", "body": self._reply})


@serve.deployment(name="NoOp", **OPTIONS)
@serve.ingress()
class NoOp:
    def __init__(self, reply: bytes) -> None:
        self._app = Constant(reply)

    def __serve_build_asgi_app__(self) -> Constant:
        return self._app
