"""`/v1/flows/{name}` and `/v1/infer/{model_id}`: ranked lists and scores."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from kirana.edge.http import HttpRequest, json_bytes
from kirana.edge.json_values import finite
from kirana.edge.messages import FlowRun, Infer
from kirana.edge.protobuf import infer_reply
from kirana.errors import InvalidInput
from kirana.flow import FlowRequest, FlowRunner
from kirana.inferflow import InferflowRunner, InferRequest, InferResult
from kirana.loop import INLINE_CELLS, INLINE_ROWS, inline_or_thread

_RETURNS = ("outputs", "matrix")


class RankingHandlers:
    def __init__(self, flows: FlowRunner, inferflow: InferflowRunner) -> None:
        self._flows = flows
        self._inferflow = inferflow

    async def run_flow(self, request: HttpRequest) -> bytes:
        message = await request.decode(FlowRun)
        (flow,) = request.parameters
        result = await self._flows.run(
            FlowRequest(flow, message.context, message.trace), request.context
        )
        columns = dict(result.output.columns)
        output: dict[str, Any] = {"ids": result.output.ids}
        if "score" in columns:
            output["scores"] = finite(columns.pop("score"))
        for name, values in columns.items():
            output.setdefault(name, finite(values))
        reply: dict[str, Any] = {"output": output, "revision": request.context.revision.number}
        if message.trace:
            reply["trace"] = [asdict(span) for span in result.spans]
        return json_bytes(reply)

    async def infer(self, request: HttpRequest) -> bytes:
        message = await request.decode(Infer)
        (model_id,) = request.parameters
        for at, name in enumerate(message.returned):
            if name not in _RETURNS:
                raise InvalidInput(f"'{name}' is none of {_RETURNS}", field=f"return[{at}]")
        for name, value in message.context.items():
            if value == []:
                raise InvalidInput("the list is empty", field=f"context.{name}")
        if message.top_k is not None and message.top_k < 1:
            raise InvalidInput(f"{message.top_k} is less than 1", field="top_k")
        infer = InferRequest(
            model_id,
            message.context,
            message.inputs,
            message.top_k,
            keep_matrix="matrix" in message.returned,
        )
        result = await self._inferflow.infer(infer, request.context)
        cells = len(result.ids) if result.matrix is None else result.matrix.size
        if request.binary_reply:
            return await inline_or_thread(
                cells <= INLINE_CELLS, infer_reply, message, result, request.context.revision.number
            )
        inline = cells <= 10 * INLINE_ROWS
        return await inline_or_thread(
            inline, _infer_reply, message, result, request.context.revision.number
        )


def _infer_reply(message: Infer, result: InferResult, revision: int) -> bytes:
    reply: dict[str, Any] = {
        "ids": result.ids,
        "scores": finite(result.scores),
        "defaults": result.defaults,
        "revision": revision,
    }
    if "outputs" in message.returned:
        reply["outputs"] = {name: finite(values) for name, values in result.outputs.items()}
    if result.matrix is not None:
        reply["matrix"] = {"columns": result.columns, "rows": finite(result.matrix)}
    return json_bytes(reply)
