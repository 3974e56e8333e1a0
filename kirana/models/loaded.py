"""Loaded models, which run on the event loop while their runs are short."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from weakref import WeakValueDictionary

import numpy as np
import numpy.typing as npt
import onnxruntime

from kirana.catalog.objects import ModelObject
from kirana.errors import KiranaError, ModelFailed
from kirana.models.copies import ModelCopies
from kirana.models.onnx import OnnxModel, warm_up_options
from kirana.models.pace import LONG_S, Pace
from kirana.models.runner import MATRIX, Scores
from kirana.models.threads import ModelThreads

WARM_UP_ROWS = (1, 1, 64, 1_024)
"""The numbers of rows on which a model is run when it is loaded.

The first run also allocates memory. It is not measured unless it is long.
"""


class LoadedModel:
    """A loaded model. It runs on the event loop if a run is expected to be short, else in a thread.

    A run is expected to be short only if earlier runs of its size or a larger size were measured to
    be short. A model with loops or branches always runs in a thread, because its time may depend on
    the values of the inputs.
    """

    def __init__(self, model: OnnxModel) -> None:
        self._model = model
        self._pace = Pace()
        self._threads = ModelThreads(model.name)
        self._warm_up()

    @property
    def model(self) -> OnnxModel:
        """The model itself."""
        return self._model

    @property
    def pending(self) -> int:
        """How many runs wait for a thread or are in progress in one."""
        return self._threads.pending

    def _warm_up(self) -> None:
        """Run the model on zeros of several sizes, until a run is long or fails.

        Do nothing if the model has no fixed width, no usable outputs, or loops or branches.
        """
        width, outputs = self._model.signature.width, self._model.signature.outputs
        if width is None or not outputs or self._model.has_control_flow:
            return
        for position, rows in enumerate(WARM_UP_ROWS):
            inputs = {MATRIX: np.zeros((rows, width), dtype=np.float32)}
            began_s = time.thread_time()
            try:
                self._model.run(inputs, outputs, warm_up_options())
            except ModelFailed:
                # Zeros may not be valid inputs. Real runs are measured instead.
                return
            took_s = time.thread_time() - began_s
            if position or took_s > LONG_S:
                self._pace.add(rows * width, took_s)
            if took_s > LONG_S:
                return

    async def run(
        self, inputs: Mapping[str, npt.NDArray[np.float32]], outputs: Sequence[str]
    ) -> dict[str, Scores]:
        """Run the model as `OnnxModel.run` does, and measure the run.

        Raise `Overloaded` if too many runs wait for a thread.
        """
        cells = sum(matrix.size for matrix in inputs.values())

        def measured(options: onnxruntime.RunOptions | None = None) -> dict[str, Scores]:
            began_s = time.thread_time()
            try:
                scores = self._model.run(inputs, outputs, options)
            except KiranaError:
                took_s = time.thread_time() - began_s
                # A run that failed or was stopped early does not show that others will be short.
                if took_s > LONG_S:
                    self._pace.add(cells, took_s)
                raise
            self._pace.add(cells, time.thread_time() - began_s)
            return scores

        if self._pace.is_short(cells) and not self._model.has_control_flow:
            return measured()
        return await self._threads.run(measured)


class LoadedModels:
    """The models that this process has loaded from their copies.

    While a model is in use, another model with the same digest is the same object. A model that is
    not referenced any more is freed. Thread-safe.
    """

    def __init__(self, copies: ModelCopies) -> None:
        self._copies = copies
        self._loaded: WeakValueDictionary[str, LoadedModel] = WeakValueDictionary()
        self._lock = threading.Lock()

    def load(self, model: ModelObject) -> LoadedModel:
        """Return a loaded model. Block while it is loaded and warmed up, once per digest.

        Raise `ConfigurationError` if the model has no digest, or if its copy is missing, was
        changed or can't be loaded.
        """
        with self._lock:
            loaded = self._loaded.get(model.sha256 or "")
            if loaded is None:
                loaded = LoadedModel(OnnxModel(model.name, self._copies.checked_path(model)))
                self._loaded[str(model.sha256)] = loaded
            return loaded
