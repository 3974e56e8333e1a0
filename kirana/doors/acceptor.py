"""Accepts the connections of a listening socket in batches."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable

logger = logging.getLogger(__name__)

BACKLOG = 2_048
"""How many connections the system keeps while they wait to be accepted."""

MAX_BATCH = 256
"""The most connections that are accepted in one iteration of the event loop."""

PAUSE_S = 0.5
"""Seconds without accepting after the system refused to accept, for example without free files."""


class Acceptor:
    """Accepts connections until it is closed, and gives each a protocol.

    uvloop's own server accepts one connection per iteration of the loop. While requests keep the
    loop busy, new clients would wait for seconds.

    Raise `OSError` if the socket can't listen.
    """

    def __init__(
        self, listening: socket.socket, protocol: Callable[[], asyncio.BaseProtocol]
    ) -> None:
        listening.setblocking(False)
        listening.listen(BACKLOG)
        self._socket = listening
        self._protocol = protocol
        self._loop = asyncio.get_running_loop()
        self._pausing: asyncio.TimerHandle | None = None
        self._opening: set[asyncio.Task[object]] = set()
        self._loop.add_reader(listening, self._accept)

    def close(self) -> None:
        """Accept no more connections. Accepted ones stay open."""
        if self._pausing is not None:
            self._pausing.cancel()
        self._loop.remove_reader(self._socket)

    async def wait_closed(self) -> None:
        """Return at once: `close` leaves nothing to wait for."""

    def _accept(self) -> None:
        for _ in range(MAX_BATCH):
            try:
                connection, _ = self._socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                logger.warning("no connection can be accepted for a moment: %s", error)
                self._loop.remove_reader(self._socket)
                self._pausing = self._loop.call_later(
                    PAUSE_S, self._loop.add_reader, self._socket, self._accept
                )
                return
            connection.setblocking(False)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
            opening = self._loop.create_task(
                self._loop.connect_accepted_socket(self._protocol, connection)
            )
            self._opening.add(opening)
            opening.add_done_callback(self._opening.discard)
