"""Wait for a condition: once for threads, once for the event loop, with the same rules."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar, cast

T = TypeVar("T")
Errors = type[Exception] | tuple[type[Exception], ...]

TIMEOUT_S = 180.0
"""Longer than a busy machine takes; a wait ends as soon as its condition holds."""
LONGEST_PAUSE_S = 0.1


def wait_for(
    get: Callable[[], T],
    what: str | Callable[[], str] = "the condition holds",
    *,
    timeout_s: float = TIMEOUT_S,
    ignoring: Errors = (),
) -> T:
    """Return the first true value of `get`; errors of `ignoring` count as not yet.

    `what` names the condition, or explains the failure once time is up.
    """
    for pause_s in _pauses(timeout_s):
        try:
            if found := get():
                return found
        except ignoring:
            pass
        time.sleep(pause_s)
    raise AssertionError(_failure(what, timeout_s))


async def wait_until(
    get: Callable[[], T | Awaitable[T]],
    what: str | Callable[[], str] = "the condition holds",
    *,
    timeout_s: float = TIMEOUT_S,
    ignoring: Errors = (),
) -> T:
    """`wait_for` in the event loop; `get` may return an awaitable."""
    for pause_s in _pauses(timeout_s):
        try:
            found = get()
            if inspect.isawaitable(found):
                found = await found
            if found:
                return cast(T, found)
        except ignoring:
            pass
        await asyncio.sleep(pause_s)
    raise AssertionError(_failure(what, timeout_s))


def _pauses(timeout_s: float) -> Iterator[float]:
    """Yield pauses from a millisecond to `LONGEST_PAUSE_S` until time is up."""
    deadline, pause_s = time.monotonic() + timeout_s, 0.001
    while time.monotonic() < deadline:
        yield pause_s
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


def _failure(what: str | Callable[[], str], timeout_s: float) -> str:
    return f"not in {timeout_s:.0f} s: {what if isinstance(what, str) else what()}"
