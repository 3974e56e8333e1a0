"""A client that hangs up: its request is given up, and nobody works for it any more."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType

from kirana.edge.exchange import HungUp

WATCHED_AFTER_S = 0.01
"""Most requests have ended by then, and pay for a timer only."""


class HangUpWatch:
    """Cancels the block when the client is gone, and then raises `HungUp` in its place.

    `hung_up` is that of a `Call`.
    """

    def __init__(self, hung_up: Callable[[], Awaitable[bool]] | None) -> None:
        self._ask = hung_up
        self._hung_up = False
        self._timer: asyncio.TimerHandle | None = None
        self._watching: asyncio.Task[None] | None = None

    async def __aenter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        if self._ask is not None:
            self._timer = asyncio.get_running_loop().call_later(WATCHED_AFTER_S, self._begin)

    def _begin(self) -> None:
        self._watching = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        assert self._ask is not None
        if await self._ask():
            self._hung_up = True
            self._task.cancel()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._watching is not None:
            self._watching.cancel()
        if self._hung_up and self._task.uncancel() <= 0 and kind is asyncio.CancelledError:
            raise HungUp from None
