"""Keep the event loop responsive: run small work on it, and large work in a thread."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Any, ParamSpec, TypeVar, cast

P = ParamSpec("P")
T = TypeVar("T")

INLINE_ROWS = 1_000
"""The most rows, keys or events that Python code handles on the event loop: about 1 ms of work."""

INLINE_CELLS = 100_000
"""The most cells that numpy or ONNX processes on the event loop: about 1 ms of work."""

INLINE_BYTES = 128 << 10
"""The most bytes of JSON that are parsed on the event loop: about 1 ms of work."""


async def inline_or_thread(
    inline: bool, work: Callable[P, T], *arguments: P.args, **named: P.kwargs
) -> T:
    """Call `work` and return its result: on the event loop if `inline`, otherwise in a thread."""
    if inline:
        return work(*arguments, **named)
    return await asyncio.to_thread(work, *arguments, **named)


async def prefetched(items: Iterator[T]) -> AsyncGenerator[T, None]:
    """Yield each item of `items` while a thread makes the next one.

    Use `aclosing` if the loop may stop before the last item. Closing or cancelling the generator
    waits until the thread has made its item. A second cancellation ends this wait.
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
