"""The direct port: serves the edge on a port of one replica. Its requests bypass Serve's proxy.

In benchmarks, the way through Serve and HAProxy takes longer than reading and ranking 500 rows.
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

from kirana.doors.acceptor import Acceptor
from kirana.doors.held_head import HeldHead
from kirana.edge.app import Edge
from kirana.edge.asgi import AsgiEdge, Receive, Scope, Send

DOOR = "direct"
"""The label of the direct port in metrics."""
KEEP_ALIVE_S = 75
"""Seconds after which an idle connection is closed."""
MAX_HEAD_BYTES = 64 << 10
"""The maximum size of a request's head, and of the trailers after its body."""
_CLOSE = (b"connection", b"close")


class _Protocol(HttpToolsProtocol):
    """HTTP protocol that refuses a head of more than `MAX_HEAD_BYTES`. uvicorn has no limit."""

    _progressed = False
    _head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._held = HeldHead(transport)
        super().connection_made(self._held)

    def on_response_complete(self) -> None:
        self._held.flush()
        super().on_response_complete()

    def data_received(self, data: bytes) -> None:
        self._progressed = False
        super().data_received(data)
        if not self._progressed:
            # The data completed no head and no message, and had no bytes of a body. So it is part
            # of a head, or of the trailers after a chunked body.
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
                self.send_400_response("The head of the request is too large.")

    def on_headers_complete(self) -> None:
        self._progressed, self._head_bytes = True, 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._progressed = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._progressed, self._head_bytes = True, 0
        super().on_message_complete()


class _Server(uvicorn.Server):
    """Server that leaves signals to the replica, and accepts connections with an `Acceptor`."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Install no signal handlers."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept connections on `sockets`."""
        await self.lifespan.startup()

        def protocol() -> _Protocol:
            return _Protocol(self.config, self.server_state, self.lifespan.state)

        # uvicorn only closes its servers and waits until they are closed. An acceptor can do both.
        self.servers = [Acceptor(each, protocol) for each in sockets or ()]  # type: ignore[misc]
        self.started = True


class DirectPort:
    """A direct port: serves an edge on a bound socket, as a task of the running event loop.

    While `drain` stops the server, requests in progress have `finish_s` seconds to finish, rounded
    up to a whole number of seconds, at least 1.
    """

    def __init__(self, edge: Edge, listening: socket.socket, *, finish_s: float) -> None:
        self._edge = AsgiEdge(edge, door=DOOR)
        self._socket = listening
        self._draining = False
        self._ongoing = 0
        self._ongoing_seconds = 0.0
        self._summed_at = self._averaged_at = time.monotonic()
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
            # uvicorn accepts whole seconds only.
            timeout_graceful_shutdown=max(int(finish_s + 0.999), 1),
        )
        self._server = _Server(config)
        self._serving = asyncio.create_task(self._server.serve(sockets=[listening]))

    @property
    def port(self) -> int:
        """The port number."""
        number: int = self._socket.getsockname()[1]
        return number

    async def started(self) -> None:
        """Return once requests are accepted.

        If the server ends before that, raise its error, or `RuntimeError` if it had none.
        """
        while not self._server.started:
            if self._serving.done():
                await self._serving
                raise RuntimeError("the server of the direct port stopped during its start")
            await asyncio.sleep(0.005)

    @property
    def serving(self) -> bool:
        """Whether the server is running."""
        return not self._serving.done()

    async def drain(self, moving_s: float) -> None:
        """Stop the server, after `moving_s` seconds in which clients can move to other replicas.

        From the start, all replies have the header `connection: close`. After `moving_s` seconds,
        no new connections are accepted. Return when the requests in progress have finished, or
        when their time to finish is over.
        """
        self._draining = True
        await asyncio.sleep(moving_s)
        self._server.should_exit = True
        await self._serving

    def take_average_ongoing(self) -> float:
        """Return the average number of requests in progress since the previous call.

        The first call covers the time since the start. If no time has passed, return the current
        number.
        """
        self._sum_up()
        seconds, self._ongoing_seconds = self._ongoing_seconds, 0.0
        elapsed_s, self._averaged_at = self._summed_at - self._averaged_at, self._summed_at
        return seconds / elapsed_s if elapsed_s > 0 else float(self._ongoing)

    def _sum_up(self) -> None:
        """Add to the sum the seconds that requests were in progress since the previous call."""
        now = time.monotonic()
        self._ongoing_seconds += self._ongoing * (now - self._summed_at)
        self._summed_at = now

    async def _asgi(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._sum_up()
        self._ongoing += 1
        try:
            await self._edge(scope, receive, self._closing_when_draining(send))
        finally:
            self._sum_up()
            self._ongoing -= 1

    def _closing_when_draining(self, send: Send) -> Send:
        """Wrap `send` so that during a drain, replies have the header `connection: close`."""

        async def send_and_close(message: MutableMapping[str, Any]) -> None:
            if self._draining and message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], _CLOSE]
            await send(message)

        return send_and_close
