"""Runs a compiled graph: branches in parallel, each node under its limits.

A node starts as soon as all that it waits for is there. A chain stays in one task; only where
the graph forks is another one made. An error stays in its node where the node falls back.
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

FALLBACKS = Counter("kirana_fallbacks", "Nodes that fell back.", ("flow", "node"))


class FlowService:
    """Implements `FlowRunner` over the parts that nodes call."""

    def __init__(
        self, services: Services, source: CatalogSource, metrics: Metrics | None = None
    ) -> None:
        self._services = services
        self._metrics = metrics or Metrics()
        self._catalogs: Revisions[Catalog] = Revisions(source, lambda catalog: catalog)

    async def prepare(self, revision: Revision) -> None:
        await self._catalogs.at(revision)

    async def health(self, revision: Revision) -> Health:
        await self.prepare(revision)
        return Health()

    async def run(self, request: FlowRequest, context: RequestContext) -> FlowResult:
        catalog = await self._catalogs.at(context.revision)
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
        self._waiting = [node.waits_for for node in graph.nodes]
        self._spans: list[Span] = []
        self._began = time.perf_counter()

    async def run(self) -> FlowResult:
        """Run every node once; return what the graph's output node gave.

        Raises what the first failing node raised; the other nodes are cancelled.
        """
        first, *others = self._graph.roots
        failure: Exception | None = None
        try:
            async with asyncio.TaskGroup() as tasks:
                for root in others:
                    tasks.create_task(self._walk(root, tasks))
                await self._walk(first, tasks)
        except ExceptionGroup as group:
            failure = _first(group)
        if failure is not None:
            raise failure
        output = self._values[self._graph.output]
        assert isinstance(output, Candidates)
        self._spans.sort(key=lambda span: span.start_ms)
        return FlowResult(output, self._spans)

    async def _walk(self, at: int, tasks: asyncio.TaskGroup) -> None:
        """Run a node, then one of the consumers that it made ready, and so on to the end."""
        following: int | None = at
        while following is not None:
            node = self._graph.nodes[following]
            await self._finish(node)
            following = None
            for consumer in node.consumers:
                self._waiting[consumer] -= 1
                if self._waiting[consumer] == 0:
                    if following is None:
                        following = consumer
                    else:
                        tasks.create_task(self._walk(consumer, tasks))

    async def _finish(self, node: GraphNode) -> None:
        """Run one node to its value: attempts, then the fallback; skipped if not wanted."""
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
                raise  # the request is wrong: neither another attempt nor a fallback mends it
            except Exception as error:
                failure = error
                # a model fails again on the same rows
                if attempts == node.attempts or isinstance(error, ModelFailed):
                    if not node.falls_back:
                        raise self._failure(node, error) from error
                    state, value = "fallback", node.node.gives.empty()
                    self._metrics.count(FALLBACKS, self._graph.name, node.name)
                else:
                    self._call.request.ledger.retries += 1
        self._values[node.name] = value
        if self._trace:
            reason = _reason(failure, node) if failure else None
            self._note(node, state, start, attempts, len(value), reason)

    def _note(
        self,
        node: GraphNode,
        state: State,
        start: float,
        attempts: int,
        size: int,
        reason: str | None,
    ) -> None:
        start_ms = (start - self._began) * 1000
        took_ms = (time.perf_counter() - start) * 1000
        span = Span(node.name, node.op, state, start_ms, took_ms, attempts, size, reason)
        self._spans.append(span)

    def _holds(self, node: GraphNode) -> bool:
        assert node.when is not None
        variables: Mapping[str, Any] = {**self._call.context, **self._values}
        for name in node.when.names:
            if name not in variables:
                raise InvalidInput(
                    f"the condition of '{node.name}' needs '{name}'", field=f"context.{name}"
                )
        try:
            return node.when.holds(variables)
        except InvalidInput as error:
            error.path = error.path and ("context", *error.path)
            raise

    def _failure(self, node: GraphNode, error: Exception) -> Exception:
        if isinstance(error, Unavailable | DeadlineExceeded | ModelFailed):
            return error
        if isinstance(error, TimeoutError):
            return DeadlineExceeded(
                f"flow '{self._graph.name}', node '{node.name}': {_reason(error, node)}"
            )
        return NodeError(self._graph.name, node.name, _reason(error, node))


def _reason(error: Exception, node: GraphNode) -> str:
    if isinstance(error, TimeoutError) and node.timeout_s is not None:
        return f"no answer in {node.timeout_s * 1000:.0f} ms"
    return str(error) or type(error).__name__


def _first(group: ExceptionGroup[Exception]) -> Exception:
    error: Exception = group
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error
