"""The interface of the flows part: its protocol, requests and results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from kirana.flow.values import Candidates
from kirana.request import RequestContext
from kirana.service import Service

State = Literal["ok", "skipped", "fallback"]
"""How a node ended: it ran, its condition did not hold, or its fallback was used."""


@dataclass(frozen=True, slots=True)
class FlowRequest:
    """A call of the flow `name`.

    `context` has the ids and all other values that its nodes and conditions use. With `trace`, the
    result has a span per node.
    """

    name: str
    context: Mapping[str, Any]
    trace: bool = False


@dataclass(frozen=True, slots=True)
class Span:
    """A record of how one node ran.

    `start_ms` counts from the start of the flow. `attempts` is 0 if the node was skipped. `size` is
    the number of items in its value. `error` says why the last failed attempt failed, even if a
    later attempt succeeded.
    """

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
    """The candidates that a flow returns and, with `trace`, one span per node, by start time."""

    output: Candidates
    spans: list[Span] = field(default_factory=list)


class FlowRunner(Service, Protocol):
    """Runs flows. Each call uses the revision and the time of its `RequestContext`."""

    async def run(self, request: FlowRequest, context: RequestContext) -> FlowResult:
        """Run a flow; return its candidates.

        Raise `Unknown` for an unknown flow, `InvalidInput` if a value of the context is missing or
        wrong, and `Unavailable` if the revision can't be read. If a node without a fallback fails,
        raise `ModelFailed` if its model failed, `Unavailable` if a part did not answer,
        `DeadlineExceeded` if the node took too long or the request's deadline has passed, and
        `NodeError` in all other cases.
        """
