"""Ctrl-C: once, what runs is left in order; once more, the process ends where it is."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeVar

T = TypeVar("T")

STOP = signal.SIGUSR1
"""Ends `kirana up` in order. While Ray starts, its own handler of SIGTERM may deadlock."""

ONCE_S = 0.3
"""Within so long it is the same Ctrl-C: a launcher may pass on what the terminal has sent too."""


def run_until_interrupted(main: Coroutine[Any, Any, T]) -> T:
    """Do as `asyncio.run`, which may hang when Ctrl-C comes twice: the second strikes it anywhere.

    Raises `KeyboardInterrupt` once `main` has been cancelled and is done.
    """
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        # somebody else has taken it, or it is to be ignored
        return asyncio.run(main)
    interrupted = False
    same_until = 0.0

    async def run() -> T:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None

        def interrupt() -> None:
            nonlocal interrupted, same_until
            if not interrupted:
                interrupted = True
                same_until = time.monotonic() + ONCE_S
                loop.call_later(ONCE_S, end_at_once_from_now_on)
                task.cancel()

        def end_at_once_from_now_on() -> None:
            loop.remove_signal_handler(signal.SIGINT)
            signal.signal(signal.SIGINT, signal.SIG_DFL)

        loop.add_signal_handler(signal.SIGINT, interrupt)
        return await main

    try:
        return asyncio.run(run())
    except asyncio.CancelledError:
        if not interrupted:
            raise
        raise KeyboardInterrupt from None
    finally:
        if interrupted:
            # the rest of the same Ctrl-C would kill a process that is leaving in order
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            time.sleep(max(0.0, same_until - time.monotonic()))
        signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def interrupts_held_back() -> Iterator[None]:
    """Have Ctrl-C and its like wait for the end of the block; the second one does not wait.

    Raises `KeyboardInterrupt` after the block.
    """
    waiting = False

    def hold(_number: int, _frame: FrameType | None) -> None:
        nonlocal waiting
        if waiting:
            raise KeyboardInterrupt
        waiting = True

    before = {
        number: handler
        for number in (signal.SIGINT, signal.SIGHUP, STOP)
        if callable(handler := signal.getsignal(number))
    }
    for number in before:
        signal.signal(number, hold)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if waiting:
        raise KeyboardInterrupt
