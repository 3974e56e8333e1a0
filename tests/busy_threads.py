"""Threads that are busy, so that no request starts."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from kirana.admission import MAX_WORKS_IN_THREADS
from kirana.loop import request_threads


class BusyThreads:
    """Work in `request_threads` that lasts until `release`."""

    def __init__(self) -> None:
        self._released = threading.Event()
        self._works = [
            asyncio.create_task(request_threads.run(lambda: self._released.wait(30)))
            for _ in range(MAX_WORKS_IN_THREADS)
        ]

    async def release(self) -> None:
        self._released.set()
        await asyncio.gather(*self._works)


@asynccontextmanager
async def busy_threads() -> AsyncIterator[BusyThreads]:
    """Keep threads busy until the block ends or releases them."""
    threads = BusyThreads()
    await asyncio.sleep(0)
    try:
        yield threads
    finally:
        await threads.release()
