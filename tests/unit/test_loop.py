"""`prefetched`: items made in a thread, one ahead of the one in use."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import aclosing

import pytest

from kirana.loop import prefetched


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
