"""Cancellation of requests whose clients have disconnected."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType

from kirana.edge.exchange import ClientDisconnected

WATCHED_AFTER_S = 0.01
"""Seconds until the watch starts. A request that ends sooner costs only a timer."""


class DisconnectWatch:
    """Context manager that cancels its block if the client disconnects.

    A block that ends by this cancellation raises `ClientDisconnected`. `disconnected` is the
    attribute of a `Call`; if it is None, nothing is watched.
    """

    def __init__(self, disconnected: Callable[[], Awaitable[bool]] | None) -> None:
        self._disconnected = disconnected
        self._cancelled = False
        self._timer: asyncio.TimerHandle | None = None
        self._watching: asyncio.Task[None] | None = None

    async def __aenter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        if self._disconnected is not None:
            self._timer = asyncio.get_running_loop().call_later(
                WATCHED_AFTER_S, self._start_watching
            )

    def _start_watching(self) -> None:
        self._watching = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        assert self._disconnected is not None
        if await self._disconnected():
            self._cancelled = True
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
        if self._cancelled and self._task.uncancel() <= 0 and kind is asyncio.CancelledError:
            raise ClientDisconnected from None
