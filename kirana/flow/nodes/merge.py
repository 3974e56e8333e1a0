"""`merge`: the union of candidates, each id once, with the columns of all; 0 where absent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from kirana.catalog.objects import Strict
from kirana.flow.nodes.base import Call, Site
from kirana.flow.values import Candidates, Shape, Value


class Parameters(Strict):
    pass


class MergeNode:
    def __init__(self, parameters: Mapping[str, Any], site: Site) -> None:
        site.parameters(Parameters, parameters)
        site.allow(Candidates)
        if not site.inputs:
            raise site.refuse("it must consume a node that gives candidates")
        columns = [name for shape in site.inputs.values() for name in shape.columns]
        self.gives = Shape(Candidates, frozenset(columns))

    async def run(self, inputs: Mapping[str, Value], call: Call) -> Value:
        parts = [value for value in inputs.values() if isinstance(value, Candidates)]
        place = {id_: at for at, id_ in enumerate(dict.fromkeys(i for p in parts for i in p.ids))}
        columns = {
            name: np.zeros(len(place), dtype=np.float32) for name in sorted(self.gives.columns)
        }
        for part in parts:
            rows = np.fromiter(map(place.__getitem__, part.ids), dtype=np.intp, count=len(part))
            for name, column in part.columns.items():
                columns[name][rows] = column
        return Candidates(list(place), columns)
