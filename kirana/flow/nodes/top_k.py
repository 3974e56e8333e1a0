"""The `top_k` node, which keeps the best candidates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from kirana.catalog.objects import Strict
from kirana.flow.nodes.base import Call, Site
from kirana.flow.values import Candidates, Shape, Value


class Parameters(Strict):
    """Parameters of a `top_k` node."""

    k: Annotated[int, Field(ge=1, le=10_000, description="Maximum number of candidates.")] = 20
    by: Annotated[str, Field(description="The column to sort by.")] = "score"


class TopKNode:
    """The `k` candidates with the highest values in one column, best first."""

    def __init__(self, parameters: Mapping[str, Any], site: Site) -> None:
        self._with = site.parameters(Parameters, parameters)
        site.allow_inputs(Candidates)
        self._candidates = site.only_input(Candidates)
        shape = site.inputs[self._candidates]
        site.check_name("column", self._with.by, dict.fromkeys(shape.columns), "with.by")
        self.gives = Shape(Candidates, shape.columns)

    async def run(self, inputs: Mapping[str, Value], call: Call) -> Value:
        """Return the best candidates. Equal values keep their order."""
        candidates = inputs[self._candidates]
        assert isinstance(candidates, Candidates)
        order = np.argsort(-candidates.columns[self._with.by], kind="stable")
        return candidates.take(order[: self._with.k])
