"""Threads: works that are counted and dropped, and items that are made ahead."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from functools import partial

import pytest

from kirana.loop import CountedThreads, prefetched


async def test_items_are_yielded_in_order() -> None:
    assert [item async for item in prefetched(iter(range(5)))] == [0, 1, 2, 3, 4]
    assert [item async for item in prefetched(iter(()))] == []


async def test_only_the_next_item_is_made_ahead() -> None:
    numbers_made: list[int] = []
    second_made = threading.Event()

    def items() -> Iterator[int]:
        for number in range(4):
            numbers_made.append(number)
            if number == 1:
                second_made.set()
            yield number

    async with aclosing(prefetched(items())) as ahead:
        assert await anext(ahead) == 0
        assert await asyncio.to_thread(second_made.wait, 10)
        await asyncio.sleep(0)
        assert numbers_made == [0, 1]
        assert await anext(ahead) == 1


async def test_an_error_is_raised_after_the_items_before_it() -> None:
    def items() -> Iterator[int]:
        yield 0
        raise ValueError("the second is damaged")

    ahead = prefetched(items())
    assert await anext(ahead) == 0
    with pytest.raises(ValueError, match="second is damaged"):
        await anext(ahead)


@pytest.mark.parametrize("cancelled", [False, True])
async def test_leaving_the_loop_early_waits_for_the_thread(cancelled: bool) -> None:
    second_begun, may_continue = threading.Event(), threading.Event()
    ended: list[int] = []

    def items() -> Iterator[int]:
        yield 0
        second_begun.set()
        may_continue.wait(10)
        ended.append(1)
        yield 1

    async def use() -> None:
        async with aclosing(prefetched(items())) as ahead:
            async for _ in ahead:
                if not cancelled:
                    raise KeyError("the store does not answer")

    task = asyncio.create_task(use())
    assert await asyncio.to_thread(second_begun.wait, 10)
    if cancelled:
        task.cancel()
    await asyncio.sleep(0)
    assert not task.done()
    may_continue.set()
    with pytest.raises(asyncio.CancelledError if cancelled else KeyError):
        await task
    assert ended == [1]


class Input:
    """What a work needs."""


async def test_a_dropped_work_does_not_keep_its_input() -> None:
    threads, released = CountedThreads(1, "test"), threading.Event()
    running = asyncio.create_task(threads.run(lambda: released.wait(30)))
    await asyncio.sleep(0)
    needed = Input()
    reference = weakref.ref(needed)
    dropped = asyncio.create_task(threads.run(partial(id, needed)))
    await asyncio.sleep(0)
    assert threads.pending == 2
    del needed
    dropped.cancel()
    await asyncio.gather(dropped, return_exceptions=True)
    del dropped
    # The task of this test still holds the future that it awaited last.
    await asyncio.sleep(0)
    gc.collect()
    assert threads.pending == 1
    assert reference() is None
    released.set()
    assert await running


async def test_work_that_no_thread_can_take_is_not_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    threads = CountedThreads(1, "test")
    monkeypatch.setattr(ThreadPoolExecutor, "submit", refuse)
    with pytest.raises(RuntimeError):
        await threads.run(lambda: None)
    assert threads.pending == 0
