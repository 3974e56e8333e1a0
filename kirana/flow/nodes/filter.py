"""The `filter` node, which drops candidates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from kirana.catalog.objects import Strict
from kirana.flow.nodes.base import Call, Site
from kirana.flow.values import Candidates, Shape, Value
from kirana.interactions import Interactions


class Parameters(Strict):
    """Parameters of a `filter` node: none."""


class FilterNode:
    """The consumed candidates without the products of the consumed interactions.

    For example, this drops the products that the user has seen.
    """

    def __init__(self, parameters: Mapping[str, Any], site: Site) -> None:
        site.parameters(Parameters, parameters)
        site.allow_inputs(Candidates, Interactions)
        self._kept = site.only_input(Candidates)
        self._dropped = [name for name, shape in site.inputs.items() if shape.type is Interactions]
        if not self._dropped:
            raise site.error(
                "must consume a node that gives interactions: their products are dropped"
            )
        self.gives = Shape(Candidates, site.inputs[self._kept].columns)

    async def run(self, inputs: Mapping[str, Value], call: Call) -> Value:
        """Return the candidates whose ids are not among the interactions, in their order."""
        candidates = inputs[self._kept]
        assert isinstance(candidates, Candidates)
        seen: set[str] = set()
        for name in self._dropped:
            interactions = inputs[name]
            assert isinstance(interactions, Interactions)
            seen.update(interactions.product_ids)
        kept = [i for i, id_ in enumerate(candidates.ids) if id_ not in seen]
        if len(kept) == len(candidates):
            return candidates
        return candidates.take(np.array(kept, dtype=np.intp))
