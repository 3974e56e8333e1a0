"""What others ask of the models, wherever they run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from kirana.request import RequestContext
from kirana.service import Service

Scores = npt.NDArray[np.float32]

MATRIX = "matrix"
"""The name of an inferflow's matrix. A model with one input takes it, whatever it calls that."""


class ModelRunner(Service, Protocol):
    """Every call is judged on the revision and at the time of its request."""

    async def run(
        self,
        model: str,
        inputs: Mapping[str, npt.NDArray[np.float32]],
        outputs: Sequence[str],
        context: RequestContext,
    ) -> dict[str, Scores]:
        """Run a model once; return the wanted outputs by name, each of the shape (rows,).

        An input has the shape (rows, columns). Raises `Unknown` for a model or an output,
        `InvalidInput` where an input has another name or width, `ModelFailed` where the model
        fails on the inputs or gives another number of rows.
        """
