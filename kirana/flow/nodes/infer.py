"""The `infer` node, which scores candidates with an inferflow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from kirana.catalog.objects import Strict
from kirana.errors import InvalidInput
from kirana.flow.nodes.base import Call, Site
from kirana.flow.values import Candidates, Shape, Value
from kirana.inferflow import InferRequest


class Parameters(Strict):
    """Parameters of an `infer` node."""

    model_id: Annotated[str, Field(description="The inferflow.")]


class InferNode:
    """The consumed candidates with a column `score`, and a column for each output of the models.

    Each column of the candidates that has the name of an input of the inferflow is sent as this
    input.
    """

    def __init__(self, parameters: Mapping[str, Any], site: Site) -> None:
        self._model_id = site.parameters(Parameters, parameters).model_id
        site.check_name("model id", self._model_id, site.catalog.inferflows, "with.model_id")
        site.allow_inputs(Candidates)
        self._candidates = site.only_input(Candidates)
        inferflow = site.catalog.inferflows[self._model_id]
        columns = site.inputs[self._candidates].columns
        self._inputs = [item.name for item in inferflow.inputs if item.name in columns]
        self._rows = inferflow.rows
        self._scalars = [name for name in inferflow.context if name != inferflow.rows]
        outputs = {model.output for model in inferflow.models}
        self.gives = Shape(Candidates, columns | outputs | {"score"})

    async def run(self, inputs: Mapping[str, Value], call: Call) -> Value:
        """Score all candidates in one call of Inferflow. Without candidates, call nothing.

        Raise `InvalidInput` if an id of the inferflow is missing in the context or invalid, or if
        the result has a wrong number of rows. Also raise the errors of Inferflow.
        """
        candidates = inputs[self._candidates]
        assert isinstance(candidates, Candidates)
        if not candidates:
            return self.gives.empty()
        context: dict[str, Any] = {name: call.id_of(name) for name in self._scalars}
        context[self._rows] = candidates.ids
        columns = candidates.columns
        request = InferRequest(
            self._model_id,
            context,
            {name: columns[name] for name in self._inputs},
            keep_matrix=False,
        )
        result = await call.services.inferflow.infer(request, call.request)
        if len(result.ids) != len(candidates):
            raise InvalidInput(
                f"'{self._model_id}' must return {len(candidates)} rows, not {len(result.ids)}"
            )
        return Candidates(candidates.ids, {**columns, **result.outputs, "score": result.scores})
