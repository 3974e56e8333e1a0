"""What others ask of Inferflow, wherever it runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from kirana.request import RequestContext
from kirana.service import Service

MAX_ROWS = 10_000
"""Of one request."""

Id = str | int
Number = float | int


@dataclass(frozen=True, slots=True)
class InferRequest:
    """The ids by the names of the inferflow's `context`; `rows` is a list, the others one id.

    `inputs` are the columns that come with the request: a list with one number a row (or an
    array), or one number for all. With `top_k` only the best rows come back, best first;
    without `keep_matrix` the matrix does not.
    """

    model_id: str
    context: Mapping[str, Id | Sequence[Id]]
    inputs: Mapping[str, Number | Sequence[Number] | npt.NDArray[np.float32]] = field(
        default_factory=dict
    )
    top_k: int | None = None
    keep_matrix: bool = True


@dataclass(frozen=True, slots=True)
class InferResult:
    """One entry a row, in the order of the request unless `top_k` asked for the best.

    `matrix` has the shape (rows, len(columns)). `defaults` counts for each feature group the
    rows (of all, not of the best) that got defaults because theirs was missing, expired,
    unavailable or corrupt.
    """

    ids: list[str]
    scores: npt.NDArray[np.float32]
    outputs: Mapping[str, npt.NDArray[np.float32]]
    columns: Sequence[str]
    matrix: npt.NDArray[np.float32] | None
    defaults: Mapping[str, int]


class InferflowRunner(Service, Protocol):
    """Every call is judged on the revision and at the time of its request."""

    async def infer(self, request: InferRequest, context: RequestContext) -> InferResult:
        """Raises `Unknown` for a model id, `InvalidInput` for ids or inputs that don't fit,

        `ModelFailed` where a model fails on the matrix.
        """
