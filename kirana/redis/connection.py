"""A connection to one Redis server, on which many requests can wait for their replies."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import hiredis
from redis.exceptions import ResponseError

from kirana import native
from kirana.redis.errors import ReplyTooSlow

MAX_WAITING = 10_000
"""Maximum number of requests that may wait for their replies."""

BUFFER_BYTES = 512 << 10
"""Initial size of the receive buffer, in bytes."""

MAX_KEPT_BYTES = 16 << 20
"""A receive buffer larger than this is replaced by one of `BUFFER_BYTES` once it is empty."""

LARGE_REPLY_BYTES = 1 << 20
"""Requests that time out behind a reply of more bytes than this fail with `ReplyTooSlow`.

The server answers, but what it sends takes long. A reply of 1,000 ordinary rows is smaller.
"""

ARRAY = -1
"""The value of `strings` for a request whose reply is one array of strings, like that of `MGET`."""


class _Request:
    """A request that was sent, and the replies that have arrived for it."""

    __slots__ = ("done", "received", "replies", "reply_count", "sent_at", "strings")

    def __init__(
        self, reply_count: int, strings: int | None, sent_at: float, received: int
    ) -> None:
        """Describe a request that was sent at `sent_at`, a time of the event loop.

        If all replies are strings, `strings` is their number, or `ARRAY` if the only reply is an
        array of strings. Otherwise it is None. `received` is the number of bytes that had arrived
        on the connection when the request was sent.
        """
        self.reply_count = reply_count
        self.strings = strings
        self.sent_at = sent_at
        self.received = received
        self.replies: list[Any] = []
        self.done: asyncio.Future[Sequence[Any]] = asyncio.get_running_loop().create_future()

    def finish(self, replies: Sequence[Any]) -> None:
        """Return `replies` to the caller, unless it was cancelled or has timed out."""
        if not self.done.done():
            self.done.set_result(replies)


class Connection(asyncio.BufferedProtocol):
    """Sends requests without waiting for the replies to earlier ones.

    Redis replies in the order of the requests, so each reply belongs to the oldest request that
    waits. If the loops are compiled, they read replies that are strings, without an object per
    string. hiredis parses all other replies. One timer serves all requests.
    """

    def __init__(self, connected: Any, on_silence: Callable[[], None]) -> None:
        """Take over the socket of `connected`, a connection of redis-py, after its handshake.

        `on_silence` is called if a request times out, no bytes have arrived since it was sent, and
        its caller no longer waits for the error.
        """
        self._on_silence = on_silence
        # redis-py has no public way to hand over its socket.
        self._writer, connected._writer, connected._reader = connected._writer, None, None
        self._transport: Any = self._writer.transport
        self._timeout_s: float = connected.socket_timeout
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._string_reader = native.replies.ValueReader() if native.COMPILED else None
        self._parser = hiredis.Reader()
        self._parsing = not native.COMPILED
        self._buffer = bytearray(BUFFER_BYTES)
        self._view = memoryview(self._buffer)
        self._start = self._end = 0
        self._waiting: deque[_Request] = deque()
        self._received = 0
        self._delivered_at = 0
        """How many bytes had arrived when the last reply was complete."""
        self._large_at = 0.0
        """When the last very large reply was complete, a time of the event loop."""
        self.closed = False
        self.socket_closed = asyncio.Event()
        self._transport.set_protocol(self)
        self._transport.resume_reading()

    async def request(
        self, commands: bytes, reply_count: int, strings: int | None = None
    ) -> Sequence[Any]:
        """Send `commands` and return their replies. Error replies are returned, not raised.

        `reply_count` is the number of replies. If all of them are strings, `strings` may be given:
        their number, or `ARRAY` if the only reply is an array of strings. The strings of the array
        are then returned, not a list that holds the array.

        Raise `TimeoutError` if the replies do not arrive within the `socket_timeout` of the redis-
        py connection: a `ReplyTooSlow` if a very large reply came first. Raise `ConnectionError` if
        the connection is lost. If `MAX_WAITING` requests already wait, close the connection and
        raise `ConnectionError`.
        """
        if self.closed:
            raise ConnectionError("the connection was lost")
        if len(self._waiting) >= MAX_WAITING:
            self.abort(ConnectionError("the server does not answer"))
            raise ConnectionError("the server does not answer")
        request = _Request(reply_count, strings, self._loop.time(), self._received)
        self._waiting.append(request)
        self._transport.write(commands)
        if self._timer is None:
            self._start_timer(request)
        return await request.done

    def _start_timer(self, request: _Request) -> None:
        """Set the timer to check for timeouts when `request` becomes overdue."""
        self._timer = self._loop.call_at(request.sent_at + self._timeout_s, self._check_timeouts)

    def _check_timeouts(self) -> None:
        """Fail overdue requests with `TimeoutError`, or `ReplyTooSlow` behind a large reply.

        Close the connection if no bytes have arrived since one of these requests was sent.
        """
        self._timer = None
        now = self._loop.time()
        if self._received - self._delivered_at > LARGE_REPLY_BYTES:
            self._large_at = now
        for request in self._waiting:
            if request.sent_at + self._timeout_s > now:
                self._start_timer(request)
                return
            reason = f"no answer in {self._timeout_s} s"
            abandoned = request.done.done()
            behind_large = request.sent_at <= self._large_at
            if not abandoned:
                error = (
                    ReplyTooSlow("the request waits behind a very large reply")
                    if behind_large
                    else None
                )
                request.done.set_exception(error or TimeoutError(reason))
            if request.received == self._received:
                if abandoned and not behind_large:
                    self._on_silence()
                # `SharedConnection` sends the other requests again, over a new connection.
                self.abort(ConnectionError(reason))
                return

    def abort(self, error: Exception) -> None:
        """Close the connection, and raise `error` in all callers that wait."""
        self.closed = True
        if self._timer is not None:
            self._timer.cancel()
        waiting, self._waiting = self._waiting, deque()
        for request in waiting:
            if not request.done.done():
                request.done.set_exception(error)
        self._transport.abort()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return the free part of the receive buffer, into which the event loop reads."""
        if self._start == self._end:
            self._start = self._end = 0
            if len(self._buffer) > MAX_KEPT_BYTES:
                self._change_buffer(BUFFER_BYTES)
        elif self._end == len(self._buffer):
            self._change_buffer(max(2 * (self._end - self._start), BUFFER_BYTES))
        return self._view[self._end :]

    def _change_buffer(self, size: int) -> None:
        """Move the unread bytes to a new buffer of `size` bytes."""
        unread = self._view[self._start : self._end]
        self._buffer = bytearray(size)
        self._view = memoryview(self._buffer)
        self._view[: len(unread)] = unread
        self._start, self._end = 0, len(unread)

    def buffer_updated(self, nbytes: int) -> None:
        """Read the replies that are complete now that `nbytes` more bytes have arrived."""
        self._received += nbytes
        self._end += nbytes
        try:
            if self._parsing or not self._read_strings():
                self._parse()
        except (hiredis.ProtocolError, IndexError) as error:
            self.abort(ConnectionError(f"the bytes received are not a reply of Redis: {error}"))

    def _read_strings(self) -> bool:
        """Read the complete replies that are strings, up to the first other reply.

        Return False if `_parse` must read the next bytes, because they are not the strings that the
        oldest request expects, or because no request waits.
        """
        reader = self._string_reader
        assert reader is not None
        while self._start < self._end:
            if not self._waiting or (request := self._waiting[0]).strings is None:
                return False
            try:
                values = reader.read(self._buffer, self._start, self._end, request.strings)
            except native.replies.NotStrings:
                return False
            if values is None:
                return True
            self._start += reader.used
            self._mark_delivered(self._received - (self._end - self._start))
            self._waiting.popleft().finish(values)
        return True

    def _parse(self) -> None:
        """Parse all unread bytes with hiredis.

        hiredis keeps the bytes of an incomplete reply, so it must also parse the bytes that arrive
        next.
        """
        self._parsing = True
        self._parser.feed(self._buffer, self._start, self._end - self._start)  # type: ignore[arg-type]
        self._start = self._end
        incomplete = True
        while (reply := self._parser.gets()) is not False:
            # If hiredis keeps more bytes, it must also parse the bytes that arrive next, even if no
            # request waits: the kept bytes may be the start of a push message.
            incomplete = self._parser.has_data()
            self._mark_delivered(self._received)
            self._deliver(reply)
        # If hiredis has parsed some of the replies to a request, it must parse the others too.
        incomplete = incomplete or bool(self._waiting and self._waiting[0].replies)
        self._parsing = self._string_reader is None or incomplete

    def _mark_delivered(self, received: int) -> None:
        """Record that a reply is complete, which ended after `received` bytes."""
        if received - self._delivered_at > LARGE_REPLY_BYTES:
            self._large_at = self._loop.time()
        self._delivered_at = received

    def _deliver(self, reply: Any) -> None:
        """Add a reply to the oldest request that waits. Ignore push messages."""
        if isinstance(reply, hiredis.PushNotification):
            return
        request = self._waiting[0]
        request.replies.append(reply)
        if len(request.replies) == request.reply_count:
            self._waiting.popleft()
            is_array = request.strings == ARRAY and isinstance(request.replies[0], list)
            request.finish(request.replies[0] if is_array else request.replies)

    def eof_received(self) -> None:
        """Fail all requests that wait, because the server has closed the connection."""
        self.abort(ConnectionError("the server closed the connection"))

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail all requests that wait, and set `socket_closed`."""
        self.abort(ConnectionError(str(exc) if exc else "the connection was lost"))
        self.socket_closed.set()


def values_of(replies: Sequence[Any]) -> Sequence[bytes | None]:
    """Return the values in the replies to `GET` commands, or in the array that `MGET` returns.

    If a key holds something that is not a string, `GET` returns an error, but `MGET` returns None.
    In both cases the value is None here. Raise `ResponseError` if a reply is any other error.
    """
    if native.COMPILED and isinstance(replies, native.replies.Values):
        return replies
    values = list(replies)
    for i, reply in enumerate(values):
        if isinstance(reply, hiredis.ReplyError):
            if not str(reply).startswith("WRONGTYPE"):
                raise ResponseError(str(reply))
            values[i] = None
    return values
