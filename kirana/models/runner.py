"""The interface of the models part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from kirana.request import RequestContext
from kirana.service import Service

Scores = npt.NDArray[np.float32]

MATRIX = "matrix"
"""A name for the input of any model, whatever the model itself calls its input."""


class ModelRunner(Service, Protocol):
    """Runs models. Each call uses the revision and the time of its `RequestContext`."""

    async def run(
        self,
        model: str,
        inputs: Mapping[str, npt.NDArray[np.float32]],
        outputs: Sequence[str],
        context: RequestContext,
    ) -> dict[str, Scores]:
        """Run a model once; return the wanted outputs by name, each as `float32[rows]`.

        `inputs` has one matrix, `float32[rows, columns]`, by the name of the model's input or by
        `MATRIX`. Raise `Unknown` for an unknown model or output, `InvalidInput` if the input has a
        wrong name or width, `ModelFailed` if the model fails on it or returns a wrong number of
        rows, and `Unavailable` if the models of the revision can't be loaded.
        """
