"""Reads of one Redis over one connection that all callers share: requests go out as they come.

Ten times as many small reads a second as with a connection a call, and twice as many large ones:
commands are joined here, not packed word by word, and answers are parsed where they arrive.
redis-py makes the connection (address, TLS, password, Sentinel) and hands its socket over.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any, cast

import hiredis
from redis.exceptions import ResponseError

from kirana import native

BUFFER_BYTES = 256 << 10
MAX_WAITING = 10_000
_HEADS = [b"\r\n$%d\r\n" % length for length in range(1024)]


def mget_command(keys: Sequence[bytes]) -> bytes:
    """Return `MGET` of keys of less than 1,024 bytes each."""
    if native.COMPILED:
        return native.keys.mget_command(keys if isinstance(keys, list) else list(keys))
    heads = map(_HEADS.__getitem__, map(len, keys))
    words = b"".join(chain.from_iterable(zip(heads, keys, strict=True)))
    return b"*%d\r\n$4\r\nMGET%b\r\n" % (len(keys) + 1, words)


def get_command(key: bytes) -> bytes:
    """Return `GET` of a key, for a cluster: its keys are of many slots."""
    return b"*2\r\n$3\r\nGET\r\n$%d\r\n%b\r\n" % (len(key), key)


class Lane:
    """One connection to one server, made when it is first asked for and again when it was lost.

    `make` returns an unconnected connection of redis-py; to find a server, and then to be answered
    by it, may take `limit_s`.
    """

    def __init__(self, make: Callable[[], Any], limit_s: float) -> None:
        self._make = make
        self._limit_s = limit_s
        self._connection: _Connection | None = None
        self._connecting: asyncio.Task[_Connection] | None = None
        self._closed = False
        self._callers = 0

    async def ask(self, request: bytes, replies: int) -> list[Any]:
        """Send `request` and return so many answers.

        Raises `OSError` or `TimeoutError` if the server does not answer, `RedisError` if it
        refuses the connection. What it says of a request is an answer, be it an error.
        """
        self._callers += 1
        try:
            connection = self._connection
            if connection is not None and not connection.closed:
                try:
                    return await connection.ask(request, replies)
                except ConnectionError:
                    # it may have been closed for being idle: once more, over a new one
                    if self._closed:
                        raise
            async with asyncio.timeout(self._limit_s):
                connection = await self._connected()
                return await connection.ask(request, replies)
        finally:
            self._callers -= 1

    @property
    def busy(self) -> bool:
        """Whether somebody waits for an answer."""
        return self._callers > 0

    async def _connected(self) -> _Connection:
        if self._connection is not None and not self._connection.closed:
            return self._connection
        if self._closed:
            raise ConnectionError("the store is closed")
        if self._connecting is None:
            self._connecting = asyncio.create_task(self._connect())
        return await asyncio.shield(self._connecting)

    async def _connect(self) -> _Connection:
        try:
            made = self._make()
            await made.connect()
            self._connection = _Connection(made)
            return self._connection
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


class _Request:
    __slots__ = ("answers", "asked_at", "done", "received", "wanted")

    def __init__(self, wanted: int, asked_at: float, received: int) -> None:
        """`received` is what the connection had received when this was asked, in bytes."""
        self.wanted = wanted
        self.asked_at = asked_at
        self.received = received
        self.answers: list[Any] = []
        self.done: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()


class _Connection(asyncio.BufferedProtocol):
    """Answers come in the order of the requests: each is the oldest one's that waits.

    One timer looks for requests that are overdue: a timer a request would cost more than to ask.
    """

    def __init__(self, made: Any) -> None:
        # redis-py has no name for this: after its handshake the socket is taken over
        self._writer, made._writer, made._reader = made._writer, None, None
        self._transport: Any = self._writer.transport
        self._timeout_s: float = made.socket_timeout
        self._loop = asyncio.get_running_loop()
        self._watch: asyncio.TimerHandle | None = None
        self._parser = hiredis.Reader()
        self._buffer = bytearray(BUFFER_BYTES)
        self._view = memoryview(self._buffer)
        self._waiting: deque[_Request] = deque()
        self._received = 0
        self.closed = False
        self.lost = asyncio.Event()
        self._transport.set_protocol(self)
        self._transport.resume_reading()

    async def ask(self, request: bytes, replies: int) -> list[Any]:
        if len(self._waiting) >= MAX_WAITING:
            # those who asked have gone, and nothing was heard since
            self.abort(ConnectionError("the server does not answer"))
            raise ConnectionError("the server does not answer")
        waiting = _Request(replies, self._loop.time(), self._received)
        self._waiting.append(waiting)
        self._transport.write(request)
        if self._watch is None:
            self._look_after(waiting)
        return await waiting.done

    def _look_after(self, request: _Request) -> None:
        self._watch = self._loop.call_at(request.asked_at + self._timeout_s, self._look)

    def _look(self) -> None:
        """Give up what is overdue, and the connection if nothing came since that was asked."""
        self._watch = None
        now = self._loop.time()
        for request in self._waiting:
            if request.asked_at + self._timeout_s > now:
                self._look_after(request)
                return
            reason = f"no answer in {self._timeout_s} s"
            if not request.done.done():
                request.done.set_exception(TimeoutError(reason))
            if request.received == self._received:
                # it says nothing to anybody: the others try once more, over a new connection
                self.abort(ConnectionError(reason))
                return

    def abort(self, error: Exception) -> None:
        """Give all who wait the error, and close."""
        self.closed = True
        if self._watch is not None:
            self._watch.cancel()
        waiting, self._waiting = self._waiting, deque()
        for request in waiting:
            if not request.done.done():
                request.done.set_exception(error)
        self._transport.abort()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._view

    def buffer_updated(self, nbytes: int) -> None:
        self._received += nbytes
        parser = self._parser
        try:
            parser.feed(self._buffer, 0, nbytes)  # type: ignore[arg-type]
            while (answer := parser.gets()) is not False:
                self._take(answer)
        except (hiredis.ProtocolError, IndexError) as error:
            self.abort(ConnectionError(f"this is no answer of Redis: {error}"))

    def _take(self, answer: Any) -> None:
        if isinstance(answer, hiredis.PushNotification):
            return
        request = self._waiting[0]
        request.answers.append(answer)
        if len(request.answers) == request.wanted:
            self._waiting.popleft()
            # nobody may be waiting any more
            if not request.done.done():
                request.done.set_result(request.answers)

    def eof_received(self) -> None:
        self.abort(ConnectionError("the server closed the connection"))

    def connection_lost(self, exc: Exception | None) -> None:
        self.abort(ConnectionError(str(exc) if exc else "the connection was lost"))
        self.lost.set()


def values_of(answers: Sequence[Any]) -> list[bytes | None]:
    """Return the values that were asked for, None for what is no string, as `MGET` does.

    Raises `ResponseError` if an answer is an error.
    """
    found = list(answers)
    for at, answer in enumerate(found):
        if isinstance(answer, hiredis.ReplyError):
            if not str(answer).startswith("WRONGTYPE"):
                raise ResponseError(str(answer))
            found[at] = None
    return cast("list[bytes | None]", found)
