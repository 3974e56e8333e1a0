"""Flows by hand: coroutines in the same shape, each with a time limit and a caught error."""

from __future__ import annotations

import asyncio

TIMEOUT_S = 1.0


async def work() -> int:
    return 1


async def guarded() -> int | None:
    try:
        async with asyncio.timeout(TIMEOUT_S):
            return await work()
    except Exception:
        return None


async def chain(length: int) -> None:
    for _ in range(length):
        await guarded()


async def fan_out(width: int) -> None:
    await guarded()
    async with asyncio.TaskGroup() as tasks:
        for _ in range(width):
            tasks.create_task(guarded())
    await guarded()


async def diamond() -> None:
    await fan_out(2)
