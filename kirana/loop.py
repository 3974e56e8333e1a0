"""The event loop is never held: small work runs where it is, large work in a thread."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Any, ParamSpec, TypeVar, cast

P = ParamSpec("P")
T = TypeVar("T")

INLINE_ROWS = 1_000
"""Rows, keys or events that Python touches one by one: up to so many stay, about 1 ms."""

INLINE_CELLS = 100_000
"""Cells that numpy and ONNX touch: up to so many stay, about 1 ms."""

INLINE_BYTES = 128 << 10
"""Bytes of JSON: up to so many stay, about 1 ms."""


async def inline_or_thread(
    inline: bool, work: Callable[P, T], *arguments: P.args, **named: P.kwargs
) -> T:
    """Call `work` on the event loop if `inline`, else in a thread."""
    if inline:
        return work(*arguments, **named)
    return await asyncio.to_thread(work, *arguments, **named)


async def made_ahead(items: Iterator[T]) -> AsyncGenerator[T, None]:
    """Yield each item while the next one is made in a thread.

    Close it (`aclosing`) where its end may not be reached: then, and when it is cancelled once,
    what the thread is making is waited for.
    """
    end = object()

    def make() -> asyncio.Task[T | object]:
        return asyncio.create_task(asyncio.to_thread(next, items, end))

    making = make()
    try:
        while True:
            # this waits without cancelling what it waits for
            await asyncio.wait([making])
            item = making.result()
            if item is end:
                return
            making = make()
            yield cast(T, item)
    finally:
        if not making.done():
            await asyncio.wait([making])
        look_at_error(making)


def look_at_error(task: asyncio.Task[Any]) -> None:
    """As a callback of a task: its error is no news to the log, also if nobody waits any more."""
    if not task.cancelled():
        task.exception()
