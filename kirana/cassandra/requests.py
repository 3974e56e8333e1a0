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

from kirana.cassandra.errors import FAILURES, is_refusal

INLINE_REQUESTS = 8
"""A call with more requests is sent by a thread, because sending takes some 50 us per request."""

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

    def record(self, position: int, outcome: Rows | Exception) -> None:
        """Record a reply or an error. After the last one, wake the caller."""
        self.outcomes[position] = outcome
        self._unanswered -= 1
        if isinstance(outcome, Exception):
            self._failed += 1
            self._fill_unsent(outcome)
        if not self._unanswered and self._next == len(self._parameters):
            with suppress(RuntimeError):  # The loop has ended, so nobody waits.
                self._loop.call_soon_threadsafe(self._finish)

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

    The requests of several calls are sent in the order of the calls.
    """

    def __init__(self, session: Session, limit: int) -> None:
        self._session = session
        self._limit = limit
        self._calls: deque[_Call] = deque()
        self._lock = threading.Lock()
        self._unanswered = 0
        self._sending = False
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="cassandra")

    async def run(
        self, statement: PreparedStatement, parameters: Parameters
    ) -> list[Rows | Exception]:
        """Send one request per entry of `parameters`. Return their replies or errors, in order.

        If this coroutine is cancelled, requests that are not sent yet are dropped.
        """
        call = _Call(statement, parameters)
        with self._lock:
            self._calls.append(call)
        if len(parameters) <= INLINE_REQUESTS:
            self._send()
        else:
            self._threads.submit(self._send)
        await call.done
        return call.outcomes  # type: ignore[return-value]

    def _send(self) -> None:
        """Send requests until `limit` of them wait for a reply, or until all are sent.

        Only one thread sends at a time. Replies that arrive meanwhile let it go on.
        """
        with self._lock:
            if self._sending:
                return
            self._sending = True
        while (taken := self._take()) is not None:
            call, position = taken
            try:
                future = call.send(self._session, position)
            except FAILURES as error:
                self._record(error, call, position)
            else:
                future.add_callbacks(
                    self._answered, self._failed, (call, position), None, (call, position)
                )

    def _take(self) -> tuple[_Call, int] | None:
        """Return the next request to send. If there is none, stop sending and return None."""
        with self._lock:
            while self._calls and self._unanswered < self._limit:
                position = self._calls[0].take()
                if position is not None:
                    self._unanswered += 1
                    return self._calls[0], position
                self._calls.popleft()
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
            self._unanswered -= 1
            call.record(position, outcome)

    def close(self) -> None:
        """Stop the thread that sends. Requests that are sent already are not waited for."""
        self._threads.shutdown(wait=False)
