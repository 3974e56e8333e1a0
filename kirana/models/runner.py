"""What others ask of the models, wherever they run."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from kirana.revision import Revision

Scores = npt.NDArray[np.float32]


class ModelRunner(Protocol):
    """Every call runs on one revision of the catalog."""

    async def prepare(self, revision: Revision) -> None:
        """Load the models of a revision. Raises `Unavailable` if that can't be done."""

    async def run(
        self, model: str, matrix: npt.NDArray[np.float32], output: str, revision: Revision
    ) -> Scores:
        """Score a matrix of shape (rows, columns); return `output` with the shape (rows,).

        Raises `Unknown` for a model, `InvalidInput` where the matrix has another width,
        `ModelFailed` where the model fails on it or gives another number of rows.
        """
