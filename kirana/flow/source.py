"""What others ask of the flows, wherever they run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from kirana.flow.values import Candidates
from kirana.request import RequestContext
from kirana.service import Service

State = Literal["ok", "skipped", "fallback"]


@dataclass(frozen=True, slots=True)
class FlowRequest:
    """`context` holds ids and whatever else the nodes and conditions of the flow read."""

    name: str
    context: Mapping[str, Any]
    trace: bool = False


@dataclass(frozen=True, slots=True)
class Span:
    """What one node did: when it began after the flow (ms), how long it took, how it ended."""

    node: str
    op: str
    state: State
    start_ms: float
    took_ms: float
    attempts: int
    size: int
    error: str | None = None


@dataclass(frozen=True, slots=True)
class FlowResult:
    output: Candidates
    spans: list[Span] = field(default_factory=list)


class FlowRunner(Service, Protocol):
    """Every call is judged on the revision and at the time of its request."""

    async def run(self, request: FlowRequest, context: RequestContext) -> FlowResult:
        """Raises `Unknown` for a flow, `InvalidInput` for a context that lacks something,

        `NodeError` where a node without a fallback failed, `ModelFailed` where that was a model,
        `DeadlineExceeded` where it was late.
        """
