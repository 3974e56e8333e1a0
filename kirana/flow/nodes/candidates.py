"""The `candidates` node, which calls a candidate generator."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from kirana.catalog.objects import Strict
from kirana.flow.generators import Generator
from kirana.flow.nodes.base import Call, Site
from kirana.flow.values import Candidates, Shape, Value
from kirana.interactions import Interactions


class Parameters(Strict):
    """Parameters of a `candidates` node."""

    cg_name: Annotated[str, Field(description="The candidate generator.")]
    limit: Annotated[int, Field(ge=1, le=10_000, description="Maximum number of candidates.")] = 100


class CandidatesNode:
    """The best `limit` candidates of a generator, best first.

    Their weights are in a column named after the node.
    """

    def __init__(self, parameters: Mapping[str, Any], site: Site) -> None:
        self._with = site.parameters(Parameters, parameters)
        name = self._with.cg_name
        site.check_name("candidate generator", name, site.catalog.generators, "with.cg_name")
        site.allow_inputs(Interactions)
        self._generator: Generator = site.catalog.compiled("candidate_generator", name)
        if self._generator.needs_seeds:
            self._seeds: str | None = site.only_input(Interactions)
        else:
            self._seeds = None
        self._column = site.node
        self.gives = Shape(Candidates, frozenset({self._column}))

    async def run(self, inputs: Mapping[str, Value], call: Call) -> Value:
        """Call the generator, with the consumed interactions as seeds if it needs them."""
        seeds = inputs[self._seeds] if self._seeds else Interactions.empty()
        assert isinstance(seeds, Interactions)
        ids, weights = await self._generator.generate(
            seeds, call.context, self._with.limit, call.services.features, call.request
        )
        return Candidates(ids, {self._column: weights.astype(np.float32, copy=False)})
