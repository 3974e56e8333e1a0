"""Requests to Cassandra, of which a bounded number waits for replies."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from cassandra.cluster import Session
from cassandra.query import PreparedStatement

from kirana.cassandra.errors import is_refusal
from kirana.errors import Overloaded

INLINE_REQUESTS = 8
"""How many requests the event loop sends, at some 50 us each. A thread sends the rest."""

MAX_WAITING = 200_000
"""How many requests may wait to be sent or for their replies. More are refused."""

MAX_FAILED = 16
"""The rest of a call is not sent after this many of its requests have failed."""

Rows = list[tuple[Any, ...]]
"""The rows of one reply, as tuples of columns."""

Parameters = Sequence[Sequence[Any]]
"""The parameters of the requests of one call."""


class _Call:
    """The requests of one call. `outcomes` gets one reply or error per request, in order."""

    def __init__(self, statement: PreparedStatement, parameters: Parameters) -> None:
        self._statement = statement
        self._parameters = parameters
        self._next = 0
        self._unanswered = 0
        self._failed = 0
        self._loop = asyncio.get_running_loop()
        self.outcomes: list[Rows | Exception | None] = [None] * len(parameters)
        self.done: asyncio.Future[None] = self._loop.create_future()

    def take(self) -> int | None:
        """Return the position of the next request to send, or None if there is none."""
        if self._next == len(self._parameters) or self.done.done() or self._failed >= MAX_FAILED:
            return None
        self._next += 1
        self._unanswered += 1
        return self._next - 1

    def send(self, session: Session, position: int) -> Any:
        """Send a request, and return the driver's future."""
        return session.execute_async(self._statement, self._parameters[position])

    def record(self, position: int, outcome: Rows | Exception) -> bool:
        """Record a reply or an error. After the last one, wake the caller.

        Return False if the request has an outcome already: if the driver has sent it to two nodes,
        it reports both replies.
        """
        if self.outcomes[position] is not None:
            return False
        self.outcomes[position] = outcome
        self._unanswered -= 1
        if isinstance(outcome, Exception):
            self._failed += 1
            self._fill_unsent(outcome)
        if not self._unanswered and self._next == len(self._parameters):
            with suppress(RuntimeError):  # The loop has ended, so nobody waits.
                self._loop.call_soon_threadsafe(self._finish)
        return True

    def _fill_unsent(self, error: Exception) -> None:
        """Give the unsent requests the outcome `error`, if no more requests will be sent."""
        if self._failed < MAX_FAILED and not is_refusal(error):
            return
        while self._next < len(self._parameters):
            self.outcomes[self._next] = error
            self._next += 1

    def _finish(self) -> None:
        if not self.done.done():
            self.done.set_result(None)


class Requests:
    """Sends requests over a session. At most `limit` of them wait for a reply.

    The calls whose requests are not all sent yet take turns.
    """

    def __init__(self, session: Session, limit: int) -> None:
        self._session = session
        self._limit = limit
        self._calls: deque[_Call] = deque()
        self._lock = threading.Lock()
        self._unanswered = 0
        self._waiting = 0
        self._sending = False
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="cassandra")

    async def run(
        self, statement: PreparedStatement, parameters: Parameters
    ) -> list[Rows | Exception]:
        """Send one request per entry of `parameters`. Return their replies or errors, in order.

        If this coroutine is cancelled, requests that are not sent yet are dropped. Raise
        `Overloaded` if too many requests wait already.
        """
        call = _Call(statement, parameters)
        with self._lock:
            self._waiting += len(parameters)
            if self._waiting > MAX_WAITING:
                self._waiting -= len(parameters)
                raise Overloaded("too many requests wait for Cassandra")
            self._calls.append(call)
        if not self._send(INLINE_REQUESTS):
            self._threads.submit(self._send)
        try:
            await call.done
        finally:
            with self._lock:
                self._waiting -= len(parameters)
        return call.outcomes  # type: ignore[return-value]

    def _send(self, most: int | None = None) -> bool:
        """Send requests until `limit` of them wait for a reply, or until all are sent.

        Only one thread sends at a time. Replies that arrive meanwhile let it go on. Stop after
        `most` requests, and return False then.
        """
        with self._lock:
            if self._sending:
                return True
            self._sending = True
        sent = 0
        while (taken := self._take(sent == most)) is not None:
            sent += 1
            call, position = taken
            try:
                future = call.send(self._session, position)
            except Exception as error:
                # Not only errors of the driver: nobody else would end the call.
                self._record(error, call, position)
            else:
                future.add_callbacks(
                    self._answered, self._failed, (call, position), None, (call, position)
                )
        return sent != most

    def _take(self, stop: bool) -> tuple[_Call, int] | None:
        """Return the next request to send. If there is none, stop sending and return None.

        Stop also if `stop` is True. The calls take turns, so that small ones do not wait for large
        ones.
        """
        with self._lock:
            while not stop and self._calls and self._unanswered < self._limit:
                position = self._calls[0].take()
                if position is None:
                    self._calls.popleft()
                    continue
                call = self._calls[0]
                self._calls.rotate(-1)
                self._unanswered += 1
                return call, position
            self._sending = False
            return None

    def _answered(self, rows: Rows | None, call: _Call, position: int) -> None:
        self._record(rows or [], call, position)
        self._send()

    def _failed(self, error: Exception, call: _Call, position: int) -> None:
        self._record(error, call, position)
        self._send()

    def _record(self, outcome: Rows | Exception, call: _Call, position: int) -> None:
        with self._lock:
            if call.record(position, outcome):
                self._unanswered -= 1

    def close(self) -> None:
        """Stop the thread that sends. Requests that are sent already are not waited for."""
        self._threads.shutdown(wait=False)
