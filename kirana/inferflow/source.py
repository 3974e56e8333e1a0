"""The interface of the Inferflow part: its protocol, request and result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from kirana.request import RequestContext
from kirana.service import Service

MAX_ROWS = 10_000
"""The maximum number of rows in one request."""

Id = str | int
Number = float | int


@dataclass(frozen=True, slots=True)
class InferRequest:
    """A request to score rows with the inferflow `model_id`.

    `context` has the ids that the inferflow declares in its `context`: a list for the id that its
    `rows` names, and a single id for each of the others. `inputs` are columns that come with the
    request: one number per row, or one number for all rows. With `top_k`, only the best rows are
    returned, best first. Without `keep_matrix`, the matrix is not returned.
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
    """Scores of rows, in the order of the request or, with `top_k`, best first.

    `ids` and `scores` have one entry per row, and so has each of `outputs`, the outputs of the
    models by name. `columns` are the names of the columns of `matrix`, `float32[rows, columns]`.
    `matrix` is None if the request has no `keep_matrix`.

    `defaults` says, by the full name of a feature group, how many rows of the request have its
    defaults because the stored row was missing, expired, unavailable or corrupt. Groups with a
    count of 0 are left out.
    """

    ids: list[str]
    scores: npt.NDArray[np.float32]
    outputs: Mapping[str, npt.NDArray[np.float32]]
    columns: Sequence[str]
    matrix: npt.NDArray[np.float32] | None
    defaults: Mapping[str, int]


class InferflowRunner(Service, Protocol):
    """Runs inferflows. Each call uses the revision and the time of its `RequestContext`."""

    async def infer(self, request: InferRequest, context: RequestContext) -> InferResult:
        """Return the scores of the rows in the request.

        Raise `Unknown` for an unknown model id, `InvalidInput` if ids or inputs do not fit,
        `TooLarge` if there are too many rows or an id is too long, `ModelFailed` if a model fails
        on the matrix or there is not one score per row, and `Unavailable` if the revision can't be
        read or a part does not answer.
        """
