"""The flow executor beside the same coroutines by hand, each node under a time limit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bench.figures import Figure, Report
from bench.floors import coroutines
from bench.paired import compare, seconds_a_call
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
    """Compile an adjacency list whose keys stand in topological order."""
    names = list(edges)
    inputs = {name: [each for each in names if name in edges[each]] for name in names}
    nodes = tuple(
        GraphNode(
            name=name,
            op="no_op",
            node=NoOp(),
            inputs=tuple(inputs[name]),
            consumers=tuple(names.index(each) for each in edges[name]),
            waits_for=len(inputs[name]),
            timeout_s=timeout_s,
            attempts=1,
            falls_back=False,
            when=None,
        )
        for name in names
    )
    roots = tuple(at for at, name in enumerate(names) if not inputs[name])
    return Graph("bench", nodes, roots, names[-1])


def chain(length: int) -> dict[str, list[str]]:
    return {f"n{at}": [f"n{at + 1}"] if at + 1 < length else [] for at in range(length)}


def fan_out(width: int) -> dict[str, list[str]]:
    middle = [f"m{at}" for at in range(width)]
    return {"first": middle, **{name: ["last"] for name in middle}, "last": []}


async def measure() -> Report:
    """`*_vs_by_hand`: the time of a flow / the time by hand, in the same shape."""
    nobody: Any = None
    request = RequestContext.begin(Revision("bench", 1))
    call = Call({}, Services(nobody, nobody, nobody), request)

    def flow(edges: dict[str, list[str]], timeout_s: float | None = coroutines.TIMEOUT_S) -> Any:
        graph = graph_of(edges, timeout_s)

        async def run() -> object:
            return await Execution(graph, call, Metrics(), trace=False).run()

        return run

    async def hand_chain() -> None:
        await coroutines.chain(CHAIN)

    async def hand_fan_out() -> None:
        await coroutines.fan_out(FAN_OUT)

    # times: the hand stands first, so that the ratio is flow / hand
    figures = {
        "chain_vs_by_hand": await compare(hand_chain, flow(chain(CHAIN))),
        "fan_out_vs_by_hand": await compare(hand_fan_out, flow(fan_out(FAN_OUT))),
        "diamond_vs_by_hand": await compare(coroutines.diamond, flow(fan_out(2))),
    }
    bare = await seconds_a_call(flow(chain(CHAIN), None))
    figures["bare_chain_us_per_node"] = Figure.reported([bare * 1e6 / CHAIN], "us")
    return Report(figures)
