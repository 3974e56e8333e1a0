"""What is made in a thread while the event loop goes on: in order, one ahead, never left behind."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import aclosing

import pytest

from kirana.loop import made_ahead


async def test_all_items_come_in_their_order() -> None:
    assert [item async for item in made_ahead(iter(range(5)))] == [0, 1, 2, 3, 4]
    assert [item async for item in made_ahead(iter(()))] == []


async def test_the_next_item_is_made_while_one_is_used_and_no_more() -> None:
    made: list[int] = []
    second = threading.Event()

    def items() -> Iterator[int]:
        for at in range(4):
            made.append(at)
            if at == 1:
                second.set()
            yield at

    async with aclosing(made_ahead(items())) as ahead:
        assert await anext(ahead) == 0
        assert await asyncio.to_thread(second.wait, 10)
        await asyncio.sleep(0)
        assert made == [0, 1]
        assert await anext(ahead) == 1


async def test_an_error_comes_behind_the_items_before_it() -> None:
    def items() -> Iterator[int]:
        yield 0
        raise ValueError("the second is damaged")

    ahead = made_ahead(items())
    assert await anext(ahead) == 0
    with pytest.raises(ValueError, match="second is damaged"):
        await anext(ahead)


@pytest.mark.parametrize("cancelled", [False, True])
async def test_who_leaves_waits_for_the_thread(cancelled: bool) -> None:
    began, go_on = threading.Event(), threading.Event()
    ended: list[int] = []

    def items() -> Iterator[int]:
        yield 0
        began.set()
        go_on.wait(10)
        ended.append(1)
        yield 1

    async def use() -> None:
        async with aclosing(made_ahead(items())) as ahead:
            async for _ in ahead:
                if not cancelled:
                    raise KeyError("the store is away")

    task = asyncio.create_task(use())
    assert await asyncio.to_thread(began.wait, 10)
    if cancelled:
        task.cancel()
    await asyncio.sleep(0)
    assert not task.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError if cancelled else KeyError):
        await task
    assert ended == [1]
