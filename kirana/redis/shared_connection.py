"""One connection to one Redis server, shared by all callers.

redis-py opens the connection, because it supports TLS, passwords and Sentinel. Then `Connection`
takes over its socket.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from kirana.loop import retrieve_error
from kirana.redis.connection import Connection, values_of

RECONNECT_PAUSE_S = 1.0
"""Minimum time in seconds between two calls of `reconnect` that close a connection."""


class SharedConnection:
    """A connection to one server. A request opens it if it is not open.

    `make_connection` returns a connection of redis-py that is not connected yet. If a request must
    open the connection, `limit_s` is the maximum time in seconds until its replies have arrived.
    `on_silence` is called if the server does not answer and no caller is left to receive the error.
    """

    def __init__(
        self, make_connection: Callable[[], Any], limit_s: float, on_silence: Callable[[], None]
    ) -> None:
        self._make_connection = make_connection
        self._limit_s = limit_s
        self._on_silence = on_silence
        self._connection: Connection | None = None
        self._connecting: asyncio.Task[Connection] | None = None
        self._closed = False
        self._callers = 0
        self._reconnected_at = -RECONNECT_PAUSE_S

    async def values(self, commands: bytes, strings: int) -> Sequence[bytes | None]:
        """Send `GET` commands or an `MGET`, and return the values, None for missing ones.

        `strings` is the number of replies, or `ARRAY` for an `MGET`. Raise the errors of `request`,
        and `ResponseError` for an error reply (see `values_of`).
        """
        return values_of(await self.request(commands, max(strings, 1), strings))

    async def request(
        self, commands: bytes, reply_count: int, strings: int | None = None
    ) -> Sequence[Any]:
        """Send `commands` and return their replies, as `Connection.request` does.

        Error replies are returned, not raised. Raise one of the `FAILURES` of `kirana.redis.errors`
        if the server can't be reached, refuses the connection, or does not reply in time, or if
        `close` was called.

        If a connection that was already open is lost before the replies arrive, the commands are
        sent once more, over a new connection. They may thus run twice.
        """
        self._callers += 1
        try:
            connection = self._connection
            if connection is not None and not connection.closed:
                try:
                    return await connection.request(commands, reply_count, strings)
                except ConnectionError:
                    # The server may have closed an idle connection. Try a new one.
                    if self._closed:
                        raise
            async with asyncio.timeout(self._limit_s):
                connection = await self._connected()
                return await connection.request(commands, reply_count, strings)
        finally:
            self._callers -= 1

    def reconnect(self) -> bool:
        """Close the connection, and return True. The next request opens a new one.

        With Sentinel, the new connection leads to the current master. Requests that wait are sent
        again over it. If there is no connection, or if this method closed one less than
        `RECONNECT_PAUSE_S` ago, do nothing and return False.
        """
        now = asyncio.get_running_loop().time()
        if self._connection is None or now < self._reconnected_at + RECONNECT_PAUSE_S:
            return False
        self._reconnected_at = now
        self._connection.abort(ConnectionError("a new connection replaces this one"))
        return True

    @property
    def busy(self) -> bool:
        """Whether a call of `request` is in progress."""
        return self._callers > 0

    async def _connected(self) -> Connection:
        """Return the open connection. If there is none, open one; concurrent callers share it."""
        if self._connection is not None and not self._connection.closed:
            return self._connection
        if self._closed:
            raise ConnectionError("the store is closed")
        if self._connecting is None:
            self._connecting = asyncio.create_task(self._connect())
            self._connecting.add_done_callback(retrieve_error)
        return await asyncio.shield(self._connecting)

    async def _connect(self) -> Connection:
        try:
            connected = self._make_connection()
            await connected.connect()
            self._connection = Connection(connected, self._on_silence)
            return self._connection
        except Exception:
            if not self._callers:
                self._on_silence()
            raise
        finally:
            self._connecting = None

    async def close(self) -> None:
        """Close the connection, and wait until its socket is closed. No-op if already closed."""
        self._closed = True
        connecting = self._connecting
        if connecting is not None:
            connecting.cancel()
            await asyncio.wait([connecting])
        if self._connection is not None:
            self._connection.abort(ConnectionError("the store is closed"))
            await self._connection.socket_closed.wait()
