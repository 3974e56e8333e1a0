"""One connection to one Redis that all callers share: requests go out as they come.

Ten times as many small reads a second as with a connection a call, and twice as many large ones:
commands are joined here, not packed word by word, and answers are parsed where they arrive.
redis-py makes the connection (address, TLS, password, Sentinel) and hands its socket over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from kirana.loop import look_at_error
from kirana.redis.connection import Connection, values_of

LEAVE_PAUSE_S = 1.0
"""So long a server that was found anew is good enough."""


class SharedConnection:
    """One connection to one server, made when it is first asked for and again when it was lost.

    `make` returns an unconnected connection of redis-py; to find a server, and then to be answered
    by it, may take `limit_s`. `silent` is called where the server does not answer, and all who have
    asked are gone: of the others, each hears of it.
    """

    def __init__(self, make: Callable[[], Any], limit_s: float, silent: Callable[[], None]) -> None:
        self._make = make
        self._limit_s = limit_s
        self._silent = silent
        self._connection: Connection | None = None
        self._connecting: asyncio.Task[Connection] | None = None
        self._closed = False
        self._callers = 0
        self._left_at = -LEAVE_PAUSE_S

    async def values(self, request: bytes, strings: int) -> Sequence[bytes | None]:
        """Send `request` and return so many strings; `ARRAY` is for one array of them.

        Raises as `ask` does, and `ResponseError` where the answer is an error.
        """
        return values_of(await self.ask(request, max(strings, 1), strings))

    async def ask(self, request: bytes, wanted: int, strings: int | None = None) -> Sequence[Any]:
        """Send `request` and return so many answers.

        Raises `OSError` or `TimeoutError` if the server does not answer, `RedisError` if it
        refuses the connection. What it says of a request is an answer, be it an error.
        """
        self._callers += 1
        try:
            connection = self._connection
            if connection is not None and not connection.closed:
                try:
                    return await connection.ask(request, wanted, strings)
                except ConnectionError:
                    # it may have been closed for being idle: once more, over a new one
                    if self._closed:
                        raise
            async with asyncio.timeout(self._limit_s):
                connection = await self._connected()
                return await connection.ask(request, wanted, strings)
        finally:
            self._callers -= 1

    def leave(self) -> bool:
        """Find the server anew, but not again and again; return whether it is.

        Who waits for an answer asks once more, over the new connection.
        """
        now = asyncio.get_running_loop().time()
        if self._connection is None or now < self._left_at + LEAVE_PAUSE_S:
            return False
        self._left_at = now
        self._connection.abort(ConnectionError("another server is asked from now on"))
        return True

    @property
    def busy(self) -> bool:
        """Whether somebody waits for an answer."""
        return self._callers > 0

    async def _connected(self) -> Connection:
        if self._connection is not None and not self._connection.closed:
            return self._connection
        if self._closed:
            raise ConnectionError("the store is closed")
        if self._connecting is None:
            self._connecting = asyncio.create_task(self._connect())
            self._connecting.add_done_callback(look_at_error)
        return await asyncio.shield(self._connecting)

    async def _connect(self) -> Connection:
        try:
            made = self._make()
            await made.connect()
            self._connection = Connection(made, self._silent)
            return self._connection
        except Exception:
            if not self._callers:
                self._silent()
            raise
        finally:
            self._connecting = None

    async def close(self) -> None:
        self._closed = True
        connecting = self._connecting
        if connecting is not None:
            connecting.cancel()
            await asyncio.wait([connecting])
        if self._connection is not None:
            self._connection.abort(ConnectionError("the store is closed"))
            await self._connection.lost.wait()
