"""Keep the event loop responsive: run small work on it, and large work in a thread.

Work is small if it takes about 1 ms at most.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from typing import Any, ParamSpec, TypeVar, cast

P = ParamSpec("P")
T = TypeVar("T")

INLINE_ROWS = 1_000
"""How many rows, keys or events Python code handles in about 1 ms."""

INLINE_CELLS = 100_000
"""How many cells numpy processes in about 1 ms."""

INLINE_BYTES = 128 << 10
"""How many bytes of JSON are parsed in about 1 ms."""


class CountedThreads:
    """A pool of threads that counts its works.

    Its threads start when they are needed, and end when the pool is not referenced any more.
    """

    def __init__(self, threads: int, name: str) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._lock = threading.Lock()
        self._pending = 0

    @property
    def pending(self) -> int:
        """How many works wait for a thread or run in one."""
        return self._pending

    async def run(self, work: Callable[[], T]) -> T:
        """Call `work` in a thread, with the context variables of the caller; return its result.

        If this coroutine is cancelled, work that waits for a thread is dropped.
        """
        loop = asyncio.get_running_loop()
        # The pool keeps a dropped work in its queue. Both lists are emptied then, so that nothing
        # keeps what the work and its caller hold.
        kept: list[Callable[[], T]] = [partial(copy_context().run, work)]
        waiting: list[asyncio.Future[T]] = [loop.create_future()]

        def end(running: Future[T]) -> None:
            """Count work that has ended or was dropped. Called in its thread, or the caller's."""
            kept.clear()
            with self._lock:
                self._pending -= 1
            # Nobody waits for dropped work, or after the end of the loop.
            with suppress(IndexError, RuntimeError):
                loop.call_soon_threadsafe(_settle, waiting[0], running)

        running = self._pool.submit(lambda: kept[0]())
        with self._lock:
            self._pending += 1
        running.add_done_callback(end)
        try:
            return await waiting[0]
        except asyncio.CancelledError:
            waiting.clear()
            running.cancel()
            raise


def _settle(waiting: asyncio.Future[T], ended: Future[T]) -> None:
    """Give the outcome of work that has ended to the future of its caller."""
    if waiting.done():
        return
    error = ended.exception()
    if error is not None:
        waiting.set_exception(error)
    else:
        waiting.set_result(ended.result())


request_threads = CountedThreads((os.cpu_count() or 1) + 4, "request")
"""The threads for large pieces of requests, which would keep the event loop for too long."""


async def inline_or_thread(
    inline: bool, work: Callable[P, T], *arguments: P.args, **named: P.kwargs
) -> T:
    """Call `work` and return its result: on the event loop if `inline`, else in a thread.

    The thread is one of `request_threads`.
    """
    if inline:
        return work(*arguments, **named)
    return await request_threads.run(partial(work, *arguments, **named))


async def prefetched(items: Iterator[T]) -> AsyncGenerator[T, None]:
    """Yield each item of `items` while a thread makes the next one.

    Use `aclosing` if the loop may stop before the last item. Closing or cancelling the generator
    waits until the thread has made its item. A second cancellation ends this wait. Errors of
    `items` are raised to the consumer.
    """
    end = object()

    def make() -> asyncio.Task[T | object]:
        return asyncio.create_task(asyncio.to_thread(next, items, end))

    making = make()
    try:
        while True:
            # Unlike `await making`, this does not cancel the task when the generator is cancelled.
            await asyncio.wait([making])
            item = making.result()
            if item is end:
                return
            making = make()
            yield cast(T, item)
    finally:
        if not making.done():
            await asyncio.wait([making])
        retrieve_error(making)


def retrieve_error(task: asyncio.Task[Any]) -> None:
    """Retrieve the error of a finished task, so that asyncio does not log it as never retrieved.

    Add this function as a done callback to a task that may outlive all its waiters.
    """
    if not task.cancelled():
        task.exception()
