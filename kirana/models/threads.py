"""The threads of one model."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import onnxruntime

from kirana.errors import Overloaded
from kirana.models.onnx import run_options

T = TypeVar("T")

MAX_WAITING = 64
"""How many runs of one model may wait for a thread. Further runs are refused."""


class ModelThreads:
    """Threads for the runs of one model, so that a slow model takes no thread from other work.

    A thread starts when a run needs it.
    """

    def __init__(self, model: str) -> None:
        self._model = model
        self._threads = os.cpu_count() or 1
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix=f"model-{model}")
        self._lock = threading.Lock()
        self.pending = 0
        """How many runs wait for a thread or are in progress."""

    async def run(self, work: Callable[[onnxruntime.RunOptions], T]) -> T:
        """Call `work` in a thread and return its result.

        If this coroutine is cancelled, a waiting run is dropped, and a run in progress ends before
        its next operator. Raise `Overloaded` if `MAX_WAITING` runs are waiting already.
        """
        with self._lock:
            if self.pending >= self._threads + MAX_WAITING:
                raise Overloaded(
                    f"model '{self._model}': {MAX_WAITING} runs are waiting for a thread already"
                )
            self.pending += 1
        options = run_options()
        run = self._pool.submit(work, options)
        run.add_done_callback(self._count_done)
        try:
            return await asyncio.wrap_future(run)
        except asyncio.CancelledError:
            options.terminate = True
            raise

    def _count_done(self, run: Future[T]) -> None:
        """Count a run that has ended or was dropped. Called in its thread, or in the caller's."""
        with self._lock:
            self.pending -= 1
