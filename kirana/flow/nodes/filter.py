"""`filter`: drops the candidates that are among a person's interactions (already seen)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from kirana.catalog.objects import Strict
from kirana.flow.nodes.base import Call, Site
from kirana.flow.values import Candidates, Shape, Value
from kirana.interactions import Interactions


class Parameters(Strict):
    pass


class FilterNode:
    """Drops the candidates that are among the interactions it consumes: what a person has seen."""

    def __init__(self, parameters: Mapping[str, Any], site: Site) -> None:
        site.parameters(Parameters, parameters)
        site.allow(Candidates, Interactions)
        self._kept = site.only(Candidates)
        self._dropped = [name for name, s in site.inputs.items() if s.type is Interactions]
        if not self._dropped:
            raise site.refuse("it must consume a node that gives interactions, to drop them")
        self.gives = Shape(Candidates, site.inputs[self._kept].columns)

    async def run(self, inputs: Mapping[str, Value], call: Call) -> Value:
        candidates = inputs[self._kept]
        assert isinstance(candidates, Candidates)
        seen: set[str] = set()
        for name in self._dropped:
            interactions = inputs[name]
            assert isinstance(interactions, Interactions)
            seen.update(interactions.product_ids)
        kept = [at for at, id_ in enumerate(candidates.ids) if id_ not in seen]
        if len(kept) == len(candidates):
            return candidates
        return candidates.take(np.array(kept, dtype=np.intp))
