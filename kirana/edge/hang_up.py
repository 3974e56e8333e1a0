"""A client that hangs up: its request is given up, and nobody works for it any more."""

from __future__ import annotations

import asyncio
from types import TracebackType

from kirana.edge.http import Disconnected, Receive

WATCHED_AFTER_S = 0.01
"""Most requests have ended by then, and pay for a timer only."""


class HangUpWatch:
    """Cancels the block when the client is gone, and then raises `Disconnected` in its place.

    The body must have been read: what is received after it can only be the end.
    """

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._hung_up = False
        self._watching: asyncio.Task[None] | None = None

    async def __aenter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._timer = asyncio.get_running_loop().call_later(WATCHED_AFTER_S, self._begin)

    def _begin(self) -> None:
        self._watching = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self._hung_up = True
            self._task.cancel()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._timer.cancel()
        if self._watching is not None:
            self._watching.cancel()
        if self._hung_up and self._task.uncancel() <= 0 and kind is asyncio.CancelledError:
            raise Disconnected from None
