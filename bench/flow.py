"""The flow executor compared with the same coroutines by hand, each with a time limit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bench.figures import Figure, Report
from bench.floors import coroutines
from bench.paired import compare, seconds_per_call
from kirana.flow.executor import Execution
from kirana.flow.graph import Graph, GraphNode
from kirana.flow.nodes.base import Call, Services
from kirana.flow.values import Candidates, Shape, Value
from kirana.metrics import Metrics
from kirana.request import RequestContext
from kirana.revision import Revision

CHAIN = 10
FAN_OUT = 10


class NoOp:
    gives = Shape(Candidates)

    def __init__(self) -> None:
        self._value = Candidates()

    async def run(self, inputs: Mapping[str, Value], call: Call) -> Value:
        await coroutines.work()
        return self._value


def graph_of(edges: dict[str, list[str]], timeout_s: float | None) -> Graph:
    """Return a flow of no-ops from an adjacency list whose keys are in topological order."""
    names = list(edges)
    inputs = {name: [other for other in names if name in edges[other]] for name in names}
    nodes = tuple(
        GraphNode(
            name=name,
            op="no_op",
            node=NoOp(),
            inputs=tuple(inputs[name]),
            followers=tuple(names.index(other) for other in edges[name]),
            wait_count=len(inputs[name]),
            timeout_s=timeout_s,
            attempts=1,
            falls_back=False,
            when=None,
        )
        for name in names
    )
    roots = tuple(i for i, name in enumerate(names) if not inputs[name])
    return Graph("bench", nodes, roots, names[-1])


def chain(length: int) -> dict[str, list[str]]:
    return {f"n{i}": [f"n{i + 1}"] if i + 1 < length else [] for i in range(length)}


def fan_out(width: int) -> dict[str, list[str]]:
    middle = [f"m{i}" for i in range(width)]
    return {"first": middle, **{name: ["last"] for name in middle}, "last": []}


async def measure() -> Report:
    """Measure flows. `*_vs_by_hand` is the time of a flow / of the same coroutines by hand."""
    no_service: Any = None
    request = RequestContext.begin(Revision("bench", 1))
    call = Call({}, Services(no_service, no_service, no_service), request)

    def flow(edges: dict[str, list[str]], timeout_s: float | None = coroutines.TIMEOUT_S) -> Any:
        graph = graph_of(edges, timeout_s)

        async def run() -> object:
            return await Execution(graph, call, Metrics(), trace=False).run()

        return run

    async def hand_chain() -> None:
        await coroutines.chain(CHAIN)

    async def hand_fan_out() -> None:
        await coroutines.fan_out(FAN_OUT)

    # `compare` returns B's time / A's time, so the floor comes first.
    figures = {
        "chain_vs_by_hand": await compare(hand_chain, flow(chain(CHAIN))),
        "fan_out_vs_by_hand": await compare(hand_fan_out, flow(fan_out(FAN_OUT))),
        "diamond_vs_by_hand": await compare(coroutines.diamond, flow(fan_out(2))),
    }
    bare = await seconds_per_call(flow(chain(CHAIN), None))
    figures["bare_chain_us_per_node"] = Figure.reported([bare * 1e6 / CHAIN], "us")
    return Report(figures)
