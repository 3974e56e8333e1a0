"""`top_k`: the best candidates by a column, best first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from kirana.catalog.objects import Strict
from kirana.flow.nodes.base import Call, Site
from kirana.flow.values import Candidates, Shape, Value


class Parameters(Strict):
    k: Annotated[int, Field(ge=1, le=10_000, description="How many candidates.")] = 20
    by: Annotated[str, Field(description="The column.")] = "score"


class TopKNode:
    """Gives the best candidates by one column, best first."""

    def __init__(self, parameters: Mapping[str, Any], site: Site) -> None:
        self._with = site.parameters(Parameters, parameters)
        site.allow(Candidates)
        self._candidates = site.only(Candidates)
        shape = site.inputs[self._candidates]
        site.known("column", self._with.by, dict.fromkeys(shape.columns), "with.by")
        self.gives = Shape(Candidates, shape.columns)

    async def run(self, inputs: Mapping[str, Value], call: Call) -> Value:
        candidates = inputs[self._candidates]
        assert isinstance(candidates, Candidates)
        order = np.argsort(-candidates.columns[self._with.by], kind="stable")
        return candidates.take(order[: self._with.k])
