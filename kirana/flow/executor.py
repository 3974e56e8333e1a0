"""The execution of compiled flows.

A node starts as soon as all nodes that it waits for have ended. A chain of nodes runs in one task.
Other tasks start only for further roots, and where the graph forks. If a node with a fallback
fails, the flow continues with an empty value, unless the request is invalid.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

from kirana.catalog.revisions import CatalogSource, Revisions
from kirana.catalog.snapshot import Catalog
from kirana.errors import (
    DeadlineExceeded,
    InvalidInput,
    ModelFailed,
    NodeError,
    Overloaded,
    Unavailable,
    Unknown,
)
from kirana.flow.graph import Graph, GraphNode
from kirana.flow.nodes.base import Call, Services
from kirana.flow.source import FlowRequest, FlowResult, Span, State
from kirana.flow.values import Candidates, Value
from kirana.metrics import Counter, Metrics
from kirana.request import RequestContext
from kirana.revision import Revision
from kirana.service import Health

FALLBACKS = Counter("kirana_fallbacks", "Nodes whose fallback was used.", ("flow", "node"))


class FlowService:
    """`FlowRunner` over the parts that nodes call."""

    def __init__(
        self, services: Services, source: CatalogSource, metrics: Metrics | None = None
    ) -> None:
        self._services = services
        self._metrics = metrics or Metrics()
        self._catalogs: Revisions[Catalog] = Revisions(source, lambda catalog: catalog)

    async def prepare(self, revision: Revision) -> None:
        """Load a revision. Raise `Unavailable` if it can't be read."""
        await self._catalogs.at(revision)

    async def health(self, revision: Revision) -> Health:
        """Check that the revision can be read; raise `Unavailable` if it can't."""
        await self.prepare(revision)
        return Health()

    async def run(self, request: FlowRequest, context: RequestContext) -> FlowResult:
        """Run the flow `request.name`, as the request's revision has it, in this process."""
        catalog = await self._catalogs.of(context)
        catalog.flow(request.name, field="name")
        graph: Graph = catalog.compiled("flow", request.name)
        call = Call(request.context, self._services, context)
        return await Execution(graph, call, self._metrics, trace=request.trace).run()


class Execution:
    """One run of one graph."""

    def __init__(self, graph: Graph, call: Call, metrics: Metrics, *, trace: bool) -> None:
        self._graph = graph
        self._call = call
        self._metrics = metrics
        self._trace = trace
        self._values: dict[str, Value] = {}
        self._unmet_waits = [node.wait_count for node in graph.nodes]
        """How many nodes each node still waits for, by its position in the graph."""
        self._spans: list[Span] = []
        self._began = time.perf_counter()

    async def run(self) -> FlowResult:
        """Run all nodes; return the value of the output node and, with `trace`, the spans.

        If a node fails and has no fallback, cancel the others and raise the error.
        """
        first_root, *other_roots = self._graph.roots
        failure: Exception | None = None
        try:
            async with asyncio.TaskGroup() as tasks:
                for root in other_roots:
                    tasks.create_task(self._walk(root, tasks))
                await self._walk(first_root, tasks)
        except ExceptionGroup as group:
            failure = _first_error(group)
        if failure is not None:
            raise failure
        output = self._values[self._graph.output]
        assert isinstance(output, Candidates)
        self._spans.sort(key=lambda span: span.start_ms)
        return FlowResult(output, self._spans)

    async def _walk(self, start: int, tasks: asyncio.TaskGroup) -> None:
        """Run the node at position `start`, then a follower that no longer waits, and so on.

        If several followers no longer wait, all but the first run in separate tasks.
        """
        current: int | None = start
        while current is not None:
            node = self._graph.nodes[current]
            await self._run_node(node)
            current = None
            for follower in node.followers:
                self._unmet_waits[follower] -= 1
                if self._unmet_waits[follower] == 0:
                    if current is None:
                        current = follower
                    else:
                        tasks.create_task(self._walk(follower, tasks))

    async def _run_node(self, node: GraphNode) -> None:
        """Run one node and store its value, which is empty if the node's condition does not hold.

        If the node fails, run it again, at most `node.attempts` times in total. After that, use the
        fallback, or raise the error. If a model failed, the node is not run again. `InvalidInput`
        and `Unknown` are raised at once, even if the node has a fallback.
        """
        start = time.perf_counter() if self._trace else 0.0
        state: State = "ok"
        failure: Exception | None = None
        attempts = 0
        value: Value | None = None
        if node.when is not None and not self._holds(node):
            state, value = "skipped", node.node.gives.empty()
        inputs = {name: self._values[name] for name in node.inputs}
        while value is None:
            attempts += 1
            try:
                if node.timeout_s is None:
                    value = await node.node.run(inputs, self._call)
                else:
                    async with asyncio.timeout(node.timeout_s):
                        value = await node.node.run(inputs, self._call.within(node.timeout_s))
            except (InvalidInput, Unknown):
                # The request is invalid. A retry would fail too, and a fallback would hide this.
                raise
            except Exception as error:
                failure = error
                # A model that has failed would fail again on the same rows. A retry would add to an
                # overload.
                if attempts == node.attempts or isinstance(error, ModelFailed | Overloaded):
                    if not node.falls_back:
                        raise self._failure(node, error) from error
                    state, value = "fallback", node.node.gives.empty()
                    self._metrics.count(FALLBACKS, self._graph.name, node.name)
                else:
                    self._call.request.ledger.retries += 1
        self._values[node.name] = value
        if self._trace:
            reason = _reason(failure, node) if failure else None
            self._add_span(node, state, start, attempts, len(value), reason)

    def _add_span(
        self,
        node: GraphNode,
        state: State,
        start: float,
        attempts: int,
        size: int,
        reason: str | None,
    ) -> None:
        """Record that a node ran from `start` (seconds of `time.perf_counter`) until now."""
        start_ms = (start - self._began) * 1000
        took_ms = (time.perf_counter() - start) * 1000
        span = Span(node.name, node.op, state, start_ms, took_ms, attempts, size, reason)
        self._spans.append(span)

    def _holds(self, node: GraphNode) -> bool:
        """Return whether the condition of a node holds.

        Raise `InvalidInput` with the field `context.<name>` if a name that the condition uses is
        missing in the context, or has a value of the wrong kind. Raise `InvalidInput` without a
        field if the condition can't be evaluated.
        """
        assert node.when is not None
        variables: Mapping[str, Any] = {**self._call.context, **self._values}
        for name in node.when.names:
            if name not in variables:
                raise InvalidInput(
                    f"'{name}' is missing in the context: the condition of '{node.name}' needs it",
                    field=f"context.{name}",
                )
        try:
            return node.when.holds(variables)
        except InvalidInput as error:
            error.path = error.path and ("context", *error.path)
            raise

    def _failure(self, node: GraphNode, error: Exception) -> Exception:
        """Return the error that the flow raises for `error` in a node without a fallback."""
        if isinstance(error, Unavailable | DeadlineExceeded | ModelFailed):
            return error
        if isinstance(error, TimeoutError):
            return DeadlineExceeded(
                f"flow '{self._graph.name}', node '{node.name}': {_reason(error, node)}"
            )
        return NodeError(self._graph.name, node.name, _reason(error, node))


def _reason(error: Exception, node: GraphNode) -> str:
    """Return why a node failed, as text for an error message or a span."""
    if isinstance(error, TimeoutError) and node.timeout_s is not None:
        return f"no answer in {node.timeout_s * 1000:.0f} ms"
    return str(error) or type(error).__name__


def _first_error(group: ExceptionGroup[Exception]) -> Exception:
    """Return the first error in nested exception groups."""
    error: Exception = group
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error
