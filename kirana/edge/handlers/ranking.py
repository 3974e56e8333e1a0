"""The handlers of `/v1/flows` and `/v1/infer`: candidates of flows, scores of inferflows."""

from __future__ import annotations

from typing import Any

from msgspec import UNSET

from kirana.edge import replies
from kirana.edge.exchange import Request, Response, binary_response, json_response
from kirana.edge.json_values import numbers
from kirana.edge.limits import MAX_CELLS
from kirana.edge.messages import FlowRun, Infer
from kirana.edge.protobuf import infer_reply
from kirana.edge.replies import FlowRunReply, InferMatrix, InferReply
from kirana.edge.resources import Resources
from kirana.errors import TooLarge
from kirana.flow import FlowRequest, Span
from kirana.flow.part import FLOWS
from kirana.inferflow import InferRequest, InferResult
from kirana.inferflow.part import INFERFLOW
from kirana.loop import INLINE_CELLS, INLINE_ROWS, inline_or_thread


async def run_flow(request: Request, resources: Resources) -> Response:
    """Run a flow, and return its candidates: the ids, and one list per column."""
    message = await request.decode(FlowRun)
    (flow,) = request.parameters
    result = await resources.parts[FLOWS].run(
        FlowRequest(flow, message.context, message.trace), request.context
    )
    columns = dict(result.output.columns)
    output: dict[str, Any] = {"ids": result.output.ids}
    if "score" in columns:
        output["scores"] = numbers(columns.pop("score"))
    for name, values in columns.items():
        # A node may be named `ids` or `scores`. Its column must not replace the one above.
        output.setdefault(name, numbers(values))
    spans = [_span(span) for span in result.spans] if message.trace else UNSET
    return json_response(FlowRunReply(output, request.context.revision.number, spans))


def _span(span: Span) -> replies.Span:
    return replies.Span(
        span.node,
        span.op,
        span.state,
        span.start_ms,
        span.took_ms,
        span.attempts,
        span.size,
        span.error,
    )


async def infer(request: Request, resources: Resources) -> Response:
    """Score rows by an inferflow. Return outputs and matrix only if the request names them.

    Raise `TooLarge` if the matrix to return has more than `MAX_CELLS` cells.
    """
    message = await request.decode(Infer)
    (model_id,) = request.parameters
    inferflow_request = InferRequest(
        model_id,
        message.context,
        message.inputs,
        message.top_k,
        keep_matrix="matrix" in message.returned,
    )
    try:
        result = await resources.parts[INFERFLOW].infer(inferflow_request, request.context)
    except TooLarge as error:
        error.path = error.path or ("context",)
        raise
    if result.matrix is not None and result.matrix.size > MAX_CELLS:
        raise TooLarge(
            f"the matrix has {result.matrix.size} cells, the limit is {MAX_CELLS}", field="return"
        )
    cells = len(result.ids) if result.matrix is None else result.matrix.size
    revision = request.context.revision.number
    if request.binary_reply:
        body = await inline_or_thread(cells <= INLINE_CELLS, infer_reply, message, result, revision)
        return binary_response(body)
    inline = cells <= 10 * INLINE_ROWS
    return await inline_or_thread(inline, _infer_response, message, result, revision)


def _infer_response(message: Infer, result: InferResult, revision: int) -> Response:
    reply = InferReply(list(result.ids), numbers(result.scores), dict(result.defaults), revision)
    if "outputs" in message.returned:
        reply.outputs = {name: numbers(values) for name, values in result.outputs.items()}
    if result.matrix is not None:
        reply.matrix = InferMatrix(list(result.columns), numbers(result.matrix))
    return json_response(reply)
