"""A connection to one Redis, on which requests wait in line for their answers."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import hiredis
from redis.exceptions import ResponseError

from kirana import native

MAX_WAITING = 10_000
BUFFER_BYTES = 512 << 10
LARGEST_KEPT = 16 << 20
"""A buffer that has grown beyond this is not kept once it is empty."""

ARRAY = -1
"""One array of strings is wanted, as `MGET` gives it."""


class _Request:
    __slots__ = ("answers", "asked_at", "done", "received", "strings", "wanted")

    def __init__(self, wanted: int, strings: int | None, asked_at: float, received: int) -> None:
        """`wanted` answers; or so many `strings`, or `ARRAY`, where these can be read as they are.

        `received` is what the connection had received when this was asked, in bytes.
        """
        self.wanted = wanted
        self.strings = strings
        self.asked_at = asked_at
        self.received = received
        self.answers: list[Any] = []
        self.done: asyncio.Future[Sequence[Any]] = asyncio.get_running_loop().create_future()

    def answer(self, answers: Sequence[Any]) -> None:
        # nobody may be waiting any more
        if not self.done.done():
            self.done.set_result(answers)


class Connection(asyncio.BufferedProtocol):
    """Answers come in the order of the requests: each is the oldest one's that waits.

    Strings are left as the bytes that came, by the compiled reader; what else there is, hiredis
    parses. One timer looks for requests that are overdue: one a request would cost more than to
    ask.
    """

    def __init__(self, made: Any, silent: Callable[[], None]) -> None:
        """Take over the socket of a connection of redis-py, after its handshake.

        `silent` is called where nothing came since somebody has asked who is gone.
        """
        self._silent = silent
        # redis-py has no name for this
        self._writer, made._writer, made._reader = made._writer, None, None
        self._transport: Any = self._writer.transport
        self._timeout_s: float = made.socket_timeout
        self._loop = asyncio.get_running_loop()
        self._watch: asyncio.TimerHandle | None = None
        self._strings = native.replies.ValueReader() if native.COMPILED else None
        self._parser = hiredis.Reader()
        self._parsing = not native.COMPILED
        self._buffer = bytearray(BUFFER_BYTES)
        self._view = memoryview(self._buffer)
        self._start = self._end = 0
        self._waiting: deque[_Request] = deque()
        self._received = 0
        self.closed = False
        self.lost = asyncio.Event()
        self._transport.set_protocol(self)
        self._transport.resume_reading()

    async def ask(self, request: bytes, wanted: int, strings: int | None = None) -> Sequence[Any]:
        """Return `wanted` answers, or `strings` (`ARRAY`: those of one array) as they are."""
        if self.closed:
            raise ConnectionError("the connection was lost")
        if len(self._waiting) >= MAX_WAITING:
            # those who asked have gone, and nothing was heard since
            self.abort(ConnectionError("the server does not answer"))
            raise ConnectionError("the server does not answer")
        waiting = _Request(wanted, strings, self._loop.time(), self._received)
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
            nobody = request.done.done()
            if not nobody:
                request.done.set_exception(TimeoutError(reason))
            if request.received == self._received:
                if nobody:
                    self._silent()
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
        if self._start == self._end:
            self._start = self._end = 0
            if len(self._buffer) > LARGEST_KEPT:
                self._change_buffer(BUFFER_BYTES)
        elif self._end == len(self._buffer):
            self._change_buffer(max(2 * (self._end - self._start), BUFFER_BYTES))
        return self._view[self._end :]

    def _change_buffer(self, size: int) -> None:
        """Go on with what is unread in a buffer of another size."""
        unread = self._view[self._start : self._end]
        self._buffer = bytearray(size)
        self._view = memoryview(self._buffer)
        self._view[: len(unread)] = unread
        self._start, self._end = 0, len(unread)

    def buffer_updated(self, nbytes: int) -> None:
        self._received += nbytes
        self._end += nbytes
        try:
            if self._parsing or not self._read_strings():
                self._parse()
        except (hiredis.ProtocolError, IndexError) as error:
            self.abort(ConnectionError(f"this is no answer of Redis: {error}"))

    def _read_strings(self) -> bool:
        """Read what is whole; return False where something else begins."""
        assert self._strings is not None
        while self._start < self._end:
            if not self._waiting or (request := self._waiting[0]).strings is None:
                return False
            try:
                found = self._strings.read(self._buffer, self._start, self._end, request.strings)
            except native.replies.Unusual:
                return False
            if found is None:
                return True
            self._start += self._strings.used
            self._waiting.popleft().answer(found)
        return True

    def _parse(self) -> None:
        """Parse all that is there, and what comes as long as an answer is begun."""
        self._parsing = True
        self._parser.feed(self._buffer, self._start, self._end - self._start)  # type: ignore[arg-type]
        self._start = self._end
        begun = True
        while (answer := self._parser.gets()) is not False:
            # what is left can be the beginning of a push, which nobody waits for
            begun = self._parser.has_data()
            self._take(answer)
        # of whom it has answered in part, it answers all
        begun = begun or bool(self._waiting and self._waiting[0].answers)
        self._parsing = self._strings is None or begun

    def _take(self, answer: Any) -> None:
        if isinstance(answer, hiredis.PushNotification):
            return
        request = self._waiting[0]
        request.answers.append(answer)
        if len(request.answers) == request.wanted:
            self._waiting.popleft()
            array = request.strings == ARRAY and isinstance(request.answers[0], list)
            request.answer(request.answers[0] if array else request.answers)

    def eof_received(self) -> None:
        self.abort(ConnectionError("the server closed the connection"))

    def connection_lost(self, exc: Exception | None) -> None:
        self.abort(ConnectionError(str(exc) if exc else "the connection was lost"))
        self.lost.set()


def values_of(answers: Sequence[Any]) -> Sequence[bytes | None]:
    """Return the values that were asked for, None for what is no string, as `MGET` does.

    Raises `ResponseError` if an answer is an error.
    """
    if native.COMPILED and isinstance(answers, native.replies.Values):
        return answers
    found = list(answers)
    for at, answer in enumerate(found):
        if isinstance(answer, hiredis.ReplyError):
            if not str(answer).startswith("WRONGTYPE"):
                raise ResponseError(str(answer))
            found[at] = None
    return found
