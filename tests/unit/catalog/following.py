"""A context manager in which a live revision follows its catalog."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from kirana.catalog.revisions import LiveRevision


@asynccontextmanager
async def following(live: LiveRevision) -> AsyncIterator[None]:
    """Run `live.follow()` as a task until the end of the block."""
    task = asyncio.create_task(live.follow())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
