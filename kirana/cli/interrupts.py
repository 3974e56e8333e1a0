"""Handling of Ctrl-C, and of the signal that stops `kirana up`."""

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
"""The signal that stops `kirana up`.

It is not SIGTERM, because Ray's own handler of SIGTERM may deadlock while Ray starts.
"""

SAME_INTERRUPT_S = 0.3
"""SIGINTs within this many seconds of the first one count as the same Ctrl-C.

The terminal sends SIGINT to all processes in the foreground, and a launcher may forward it as well.
"""


def run_until_interrupted(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine as `asyncio.run` does, but handle Ctrl-C safely.

    The first Ctrl-C cancels `main`. A second one kills the process. With plain `asyncio.run`, a
    second one raises `KeyboardInterrupt` at an arbitrary place, and the process may hang.

    Raise `KeyboardInterrupt` when `main` has ended because of a Ctrl-C. If SIGINT is ignored or has
    a custom handler, that stays in effect, and this function is the same as `asyncio.run`.
    """
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        return asyncio.run(main)
    interrupted = False
    same_ctrl_c_until = 0.0

    async def run() -> T:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None

        def interrupt() -> None:
            nonlocal interrupted, same_ctrl_c_until
            if not interrupted:
                interrupted = True
                same_ctrl_c_until = time.monotonic() + SAME_INTERRUPT_S
                loop.call_later(SAME_INTERRUPT_S, restore_default_action)
                task.cancel()

        def restore_default_action() -> None:
            loop.remove_signal_handler(signal.SIGINT)
            signal.signal(signal.SIGINT, signal.SIG_DFL)

        loop.add_signal_handler(signal.SIGINT, interrupt)
        try:
            return await main
        finally:
            if interrupted:
                # The loop closes this pipe before it removes its handler. A late signal of the same
                # Ctrl-C would then find a closed file.
                signal.set_wakeup_fd(-1)

    try:
        return asyncio.run(run())
    except asyncio.CancelledError:
        if not interrupted:
            raise
        raise KeyboardInterrupt from None
    finally:
        if interrupted:
            # A late signal of the same Ctrl-C must not kill a process that is ending cleanly.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            time.sleep(max(0.0, same_ctrl_c_until - time.monotonic()))
        signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def delayed_interrupts() -> Iterator[None]:
    """Delay Ctrl-C, SIGHUP and `STOP` until the end of the block.

    Raise `KeyboardInterrupt` after the block if one of them arrived and the block raised no error.
    Raise it at once if a second one arrives. Signals without a handler in Python are left as they
    are.
    """
    interrupted = False

    def delay(_number: int, _frame: FrameType | None) -> None:
        nonlocal interrupted
        if interrupted:
            raise KeyboardInterrupt
        interrupted = True

    handlers = {
        number: handler
        for number in (signal.SIGINT, signal.SIGHUP, STOP)
        if callable(handler := signal.getsignal(number))
    }
    for number in handlers:
        signal.signal(number, delay)
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    if interrupted:
        raise KeyboardInterrupt
