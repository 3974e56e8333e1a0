"""The `merge` node, which joins lists of candidates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from kirana.catalog.objects import Strict
from kirana.flow.nodes.base import Call, Site
from kirana.flow.values import Candidates, Shape, Value


class Parameters(Strict):
    """Parameters of a `merge` node: none."""


class MergeNode:
    """The union of the consumed candidates: each id once, with the columns of all consumed nodes.

    A column is 0 for ids that no node gave with this column. If several nodes gave it for an id,
    the value of the last of them counts.
    """

    def __init__(self, parameters: Mapping[str, Any], site: Site) -> None:
        site.parameters(Parameters, parameters)
        site.allow_inputs(Candidates)
        if not site.inputs:
            raise site.error("must consume a node that gives candidates")
        columns = [name for shape in site.inputs.values() for name in shape.columns]
        self.gives = Shape(Candidates, frozenset(columns))

    async def run(self, inputs: Mapping[str, Value], call: Call) -> Value:
        """Return the union. Its ids are in the order in which they first occur."""
        lists = [value for value in inputs.values() if isinstance(value, Candidates)]
        ids = dict.fromkeys(id_ for candidates in lists for id_ in candidates.ids)
        position = {id_: i for i, id_ in enumerate(ids)}
        columns = {
            name: np.zeros(len(position), dtype=np.float32) for name in sorted(self.gives.columns)
        }
        for candidates in lists:
            rows = np.fromiter(
                map(position.__getitem__, candidates.ids), dtype=np.intp, count=len(candidates)
            )
            for name, column in candidates.columns.items():
                columns[name][rows] = column
        return Candidates(list(position), columns)
