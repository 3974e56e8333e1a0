"""The threads of one model."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import onnxruntime

from kirana.errors import Overloaded
from kirana.loop import CountedThreads
from kirana.models.onnx import run_options

T = TypeVar("T")

MAX_WAITING = 64
"""How many runs of one model may wait for a thread. Further runs are refused."""


class ModelThreads:
    """Threads for the runs of one model, so that a slow model takes no thread from other work."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._count = os.cpu_count() or 1
        self._threads = CountedThreads(self._count, f"model-{model}")

    @property
    def pending(self) -> int:
        """How many runs wait for a thread or are in progress."""
        return self._threads.pending

    async def run(self, work: Callable[[onnxruntime.RunOptions], T]) -> T:
        """Call `work` in a thread and return its result.

        If this coroutine is cancelled, a waiting run is dropped, and a run in progress ends before
        its next operator. Raise `Overloaded` if `MAX_WAITING` runs are waiting already.
        """
        if self.pending >= self._count + MAX_WAITING:
            raise Overloaded(
                f"model '{self._model}': {MAX_WAITING} runs are waiting for a thread already"
            )
        options = run_options()
        try:
            return await self._threads.run(partial(work, options))
        except asyncio.CancelledError:
            options.terminate = True
            raise
