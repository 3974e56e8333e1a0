"""The direct port: the edge on a port of this replica's own, without Serve's request path.

Measured: Serve's path through HAProxy costs more than reading and ranking 500 rows.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Iterator, MutableMapping
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from kirana.edge.app import Edge
from kirana.edge.asgi import AsgiEdge, Receive, Scope, Send

DOOR = "direct"
KEEP_ALIVE_S = 75
MAX_HEAD_BYTES = 64 << 10
_CLOSE = (b"connection", b"close")


class _Protocol(HttpToolsProtocol):
    """Bounds the head of a request, which uvicorn does not: a stranger's may have no end."""

    _moved_on = False
    _head_bytes = 0

    def data_received(self, data: bytes) -> None:
        self._moved_on = False
        super().data_received(data)
        if not self._moved_on:
            # neither body nor a boundary came in it: a head, or what may follow the chunks
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
                self.send_400_response("The head of the request is too large.")

    def on_headers_complete(self) -> None:
        self._moved_on, self._head_bytes = True, 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._moved_on = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._moved_on, self._head_bytes = True, 0
        super().on_message_complete()


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the replica's business."""
        yield


class DirectPort:
    """Serves `edge` on `listening`, a bound socket, as a task of the running event loop."""

    def __init__(self, edge: Edge, listening: socket.socket, *, finish_s: float) -> None:
        self._edge = AsgiEdge(edge, door=DOOR)
        self._socket = listening
        self._draining = False
        self._ongoing = 0
        self._ongoing_seconds = 0.0
        self._changed = self._asked = time.monotonic()
        config = uvicorn.Config(
            self._asgi,
            interface="asgi3",
            http=_Protocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            # no longer than the longest that a request was given
            timeout_graceful_shutdown=max(int(finish_s + 0.999), 1),
        )
        self._server = _Server(config)
        self._serving = asyncio.create_task(self._server.serve(sockets=[listening]))

    @property
    def port(self) -> int:
        number: int = self._socket.getsockname()[1]
        return number

    async def started(self) -> None:
        """Return once requests are accepted. Raises what kept it from that."""
        while not self._server.started:
            if self._serving.done():
                await self._serving
                raise RuntimeError("the server of the direct port ended as it started")
            await asyncio.sleep(0.005)

    @property
    def serving(self) -> bool:
        return not self._serving.done()

    async def drain(self, moving_s: float) -> None:
        """Tell connections to close for `moving_s`, then accept no more, and finish requests."""
        self._draining = True
        await asyncio.sleep(moving_s)
        self._server.should_exit = True
        await self._serving

    def average_ongoing(self) -> float:
        """Return how many requests were under way, on average since the last time it was asked."""
        self._account()
        seconds, self._ongoing_seconds = self._ongoing_seconds, 0.0
        since, self._asked = self._changed - self._asked, self._changed
        return seconds / since if since > 0 else float(self._ongoing)

    def _account(self) -> None:
        now = time.monotonic()
        self._ongoing_seconds += self._ongoing * (now - self._changed)
        self._changed = now

    async def _asgi(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._account()
        self._ongoing += 1
        try:
            await self._edge(scope, receive, self._closing(send))
        finally:
            self._account()
            self._ongoing -= 1

    def _closing(self, send: Send) -> Send:
        """Wrap `send`, so that the replies of a port that drains say so."""

        async def send_and_close(message: MutableMapping[str, Any]) -> None:
            if self._draining and message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], _CLOSE]
            await send(message)

        return send_and_close
