"""`ModelThreads`: isolation of models, cancelled runs, and the bound of the queue."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable

import onnxruntime
import pytest

from kirana.errors import Overloaded
from kirana.models.threads import MAX_WAITING, ModelThreads
from tests.waiting import wait_until

Work = Callable[[onnxruntime.RunOptions], int]
THREADS = os.cpu_count() or 1


class Blocking:
    """Work that blocks its threads until `released` is set."""

    def __init__(self) -> None:
        self.released = threading.Event()
        self.options: list[onnxruntime.RunOptions] = []

    def __call__(self, options: onnxruntime.RunOptions) -> int:
        self.options.append(options)
        assert self.released.wait(30)
        return 7


async def test_work_runs_in_a_thread_and_its_error_is_raised() -> None:
    threads = ModelThreads("m")
    assert await threads.run(lambda options: threading.get_ident()) != threading.get_ident()
    with pytest.raises(ZeroDivisionError):
        await threads.run(lambda options: 1 // 0)


async def test_a_model_with_all_its_threads_busy_does_not_delay_another_model() -> None:
    slow, fast, work = ModelThreads("slow"), ModelThreads("fast"), Blocking()
    runs = [asyncio.create_task(slow.run(work)) for _ in range(THREADS + 1)]
    await wait_until(lambda: len(work.options) == THREADS, "all threads are busy")
    assert await fast.run(lambda options: 1) == 1
    work.released.set()
    assert await asyncio.gather(*runs) == [7] * (THREADS + 1)


async def test_a_cancelled_run_in_progress_is_terminated() -> None:
    threads, work = ModelThreads("m"), Blocking()
    run = asyncio.create_task(threads.run(work))
    await wait_until(lambda: bool(work.options), "the run has begun")
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert work.options[0].terminate
    work.released.set()


async def test_a_cancelled_run_that_waits_never_begins() -> None:
    threads, work = ModelThreads("m"), Blocking()
    runs = [asyncio.create_task(threads.run(work)) for _ in range(THREADS)]
    await wait_until(lambda: len(work.options) == THREADS, "all threads are busy")
    waiting = asyncio.create_task(threads.run(work))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    work.released.set()
    await asyncio.gather(*runs)
    assert await threads.run(lambda options: 1) == 1
    assert len(work.options) == THREADS


async def test_a_run_is_refused_while_the_queue_is_full_and_accepted_afterwards() -> None:
    threads, work = ModelThreads("m"), Blocking()
    runs = [asyncio.create_task(threads.run(work)) for _ in range(THREADS + MAX_WAITING)]
    await wait_until(lambda: len(work.options) == THREADS, "all threads are busy")
    with pytest.raises(Overloaded, match="model 'm'"):
        await threads.run(work)
    work.released.set()
    await asyncio.gather(*runs)
    assert await threads.run(lambda options: 1) == 1
