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
    """Gives the union of the candidates it consumes: each id once, with the columns of all nodes.

    A column is 0 where a node did not give the id.
    """

    def __init__(self, parameters: Mapping[str, Any], site: Site) -> None:
        site.parameters(Parameters, parameters)
        site.allow(Candidates)
        if not site.inputs:
            raise site.refuse("it must consume a node that gives candidates")
        columns = [name for shape in site.inputs.values() for name in shape.columns]
        self.gives = Shape(Candidates, frozenset(columns))

    async def run(self, inputs: Mapping[str, Value], call: Call) -> Value:
        lists = [value for value in inputs.values() if isinstance(value, Candidates)]
        ids = dict.fromkeys(id_ for each in lists for id_ in each.ids)
        position = {id_: at for at, id_ in enumerate(ids)}
        columns = {
            name: np.zeros(len(position), dtype=np.float32) for name in sorted(self.gives.columns)
        }
        for each in lists:
            rows = np.fromiter(map(position.__getitem__, each.ids), dtype=np.intp, count=len(each))
            for name, column in each.columns.items():
                columns[name][rows] = column
        return Candidates(list(position), columns)
