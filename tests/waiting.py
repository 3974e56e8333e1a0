"""Wait for a condition: `wait_for` blocks the thread, `wait_until` is a coroutine."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar, cast

T = TypeVar("T")
Errors = type[Exception] | tuple[type[Exception], ...]

TIMEOUT_S = 180.0
"""Seconds after which a wait fails by default. They are many, because a machine may be busy."""
LONGEST_PAUSE_S = 0.1


def wait_for(
    get: Callable[[], T],
    description: str | Callable[[], str] = "the condition holds",
    *,
    timeout_s: float = TIMEOUT_S,
    ignoring: Errors = (),
) -> T:
    """Call `get` until it returns a true value, and return that value.

    Errors in `ignoring` count as a false value. Raise `AssertionError` after `timeout_s` seconds,
    with a message that ends with `description`, or with its result if it is a function.
    """
    for pause_s in _pauses(timeout_s):
        try:
            if value := get():
                return value
        except ignoring:
            pass
        time.sleep(pause_s)
    raise AssertionError(_failure(description, timeout_s))


async def wait_until(
    get: Callable[[], T | Awaitable[T]],
    description: str | Callable[[], str] = "the condition holds",
    *,
    timeout_s: float = TIMEOUT_S,
    ignoring: Errors = (),
) -> T:
    """Wait as `wait_for` does, without blocking the event loop. `get` may return an awaitable."""
    for pause_s in _pauses(timeout_s):
        try:
            value = get()
            if inspect.isawaitable(value):
                value = await value
            if value:
                return cast(T, value)
        except ignoring:
            pass
        await asyncio.sleep(pause_s)
    raise AssertionError(_failure(description, timeout_s))


def _pauses(timeout_s: float) -> Iterator[float]:
    """Yield pauses in seconds, from 0.001 to `LONGEST_PAUSE_S`, until `timeout_s` has passed."""
    deadline, pause_s = time.monotonic() + timeout_s, 0.001
    while time.monotonic() < deadline:
        yield pause_s
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


def _failure(description: str | Callable[[], str], timeout_s: float) -> str:
    text = description if isinstance(description, str) else description()
    return f"not within {timeout_s:.0f} s: {text}"
