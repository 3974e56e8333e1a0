"""Running graphs of small nodes: order, parallel branches, retries, fallbacks and conditions."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Never

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kirana.errors import (
    DeadlineExceeded,
    InvalidInput,
    ModelFailed,
    NodeError,
    Overloaded,
    TooLarge,
    Unavailable,
    Unknown,
)
from kirana.expressions import Expression
from kirana.features import EntityRows, FeatureQuery
from kirana.features.source import FeatureWrite
from kirana.flow.executor import Execution
from kirana.flow.graph import Graph, GraphNode
from kirana.flow.nodes.base import Call, Services
from kirana.flow.source import FlowRequest, FlowResult
from kirana.flow.values import Candidates, Shape, Value
from kirana.inferflow import InferRequest, InferResult
from kirana.interactions import Event, InteractionQuery, Interactions
from kirana.metrics import Metrics
from kirana.request import RequestContext
from kirana.revision import Revision
from kirana.schema import Array
from tests.support import Shop

REQUEST = RequestContext.begin(Revision("shop", 1))

Work = Callable[[Mapping[str, Value]], Awaitable[Value]]


class NoServices:
    """A stand-in for all parts that a node can call. Each call fails the test."""

    async def read(
        self, queries: Sequence[FeatureQuery], context: RequestContext
    ) -> list[EntityRows]:
        raise AssertionError("read was called")

    async def write(self, write: FeatureWrite, context: RequestContext) -> int:
        raise AssertionError("write was called")

    async def delete(
        self, group: str, keys: Sequence[str], event_time_ms: Array, context: RequestContext
    ) -> int:
        raise AssertionError("delete was called")

    async def append(self, events: Sequence[Event], context: RequestContext) -> int:
        raise AssertionError("append was called")

    async def query(
        self, queries: Sequence[InteractionQuery], context: RequestContext
    ) -> list[Interactions]:
        raise AssertionError("query was called")

    async def forget(self, user_id: str, context: RequestContext) -> int:
        raise AssertionError("forget was called")

    async def prepare(self, revision: Revision) -> None:
        raise AssertionError("prepare was called")

    async def infer(self, request: InferRequest, context: RequestContext) -> InferResult:
        raise AssertionError("infer was called")


@dataclass
class Tiny:
    """A node that runs `work`, and records the inputs of each run in `given`."""

    work: Work
    gives: Shape = field(default_factory=lambda: Shape(Candidates, frozenset({"score"})))
    given: list[Mapping[str, Value]] = field(default_factory=list)

    async def run(self, inputs: Mapping[str, Value], call: Call) -> Value:
        self.given.append(dict(inputs))
        return await self.work(inputs)


def listed(*ids: str) -> Candidates:
    return Candidates(list(ids), {"score": np.ones(len(ids), dtype=np.float32)})


async def give(inputs: Mapping[str, Value]) -> Value:
    """Return the ids of all inputs without repeats, and `#<number of ids in all inputs>`."""
    ids = [id_ for value in inputs.values() if isinstance(value, Candidates) for id_ in value.ids]
    return listed(*dict.fromkeys([*ids, f"#{len(ids)}"]))


def failing(error: Exception, times: int = 10**6) -> Work:
    """Return work that raises `error` the first `times` times, and then succeeds."""
    failures_left = [times]

    async def work(inputs: Mapping[str, Value]) -> Value:
        if failures_left[0] > 0:
            failures_left[0] -= 1
            raise error
        return listed("at last")

    return work


async def forever(inputs: Mapping[str, Value]) -> Never:
    await asyncio.Event().wait()
    raise AssertionError("unreachable")


@dataclass
class Step:
    """A node with its limits, from which `graph_of` builds a graph."""

    node: Tiny
    consumes: tuple[str, ...] = ()
    timeout_s: float | None = None
    attempts: int = 1
    falls_back: bool = False
    when: str | None = None


def graph_of(steps: Mapping[str, Step]) -> Graph:
    """Build a graph without a catalog. Steps are in order, and the last one is the output."""
    names = list(steps)
    conditions = {
        name: Expression(step.when) if step.when else None for name, step in steps.items()
    }
    waits = {
        name: {
            *step.consumes,
            *(condition.names & steps.keys() if (condition := conditions[name]) else ()),
        }
        for name, step in steps.items()
    }
    nodes = tuple(
        GraphNode(
            name=name,
            op="tiny",
            node=step.node,
            inputs=step.consumes,
            followers=tuple(i for i, other in enumerate(names) if name in waits[other]),
            wait_count=len(waits[name]),
            timeout_s=step.timeout_s,
            attempts=step.attempts,
            falls_back=step.falls_back,
            when=conditions[name],
        )
        for name, step in steps.items()
    )
    roots = tuple(i for i, name in enumerate(names) if not waits[name])
    return Graph("tiny", nodes, roots, names[-1])


async def run(
    steps: Mapping[str, Step], context: Mapping[str, Any] | None = None, *, trace: bool = False
) -> FlowResult:
    no_services = NoServices()
    call = Call(context or {}, Services(no_services, no_services, no_services), REQUEST)
    async with asyncio.timeout(30):
        return await Execution(graph_of(steps), call, Metrics(), trace=trace).run()


async def test_a_flow_may_have_a_single_node() -> None:
    assert (await run({"a": Step(Tiny(give))})).output.ids == ["#0"]


async def test_a_node_receives_its_inputs_by_name() -> None:
    last = Tiny(give)
    steps = {
        "a": Step(Tiny(give)),
        "b": Step(Tiny(give), ("a",)),
        "c": Step(last, ("b", "a")),
    }
    assert (await run(steps)).output.ids == ["#0", "#1", "#3"]
    (given,) = last.given
    assert {name: value.ids for name, value in given.items() if isinstance(value, Candidates)} == {
        "b": ["#0", "#1"],
        "a": ["#0"],
    }


@pytest.mark.parametrize("count", [2, 3, 10])
async def test_roots_run_at_the_same_time(count: int) -> None:
    barrier = asyncio.Barrier(count)

    async def meet(inputs: Mapping[str, Value]) -> Value:
        await barrier.wait()
        return listed("met")

    steps = {f"r{i}": Step(Tiny(meet)) for i in range(count)}
    await run({**steps, "end": Step(Tiny(give), tuple(steps))})


async def test_branches_of_a_fork_run_at_the_same_time() -> None:
    barrier = asyncio.Barrier(3)

    async def meet(inputs: Mapping[str, Value]) -> Value:
        await barrier.wait()
        return listed("met")

    branches = {name: Step(Tiny(meet), ("root",)) for name in ("x", "y", "z")}
    steps = {"root": Step(Tiny(give)), **branches, "end": Step(Tiny(give), tuple(branches))}
    await run(steps)


async def test_a_branch_does_not_wait_for_a_slower_branch() -> None:
    arrived = asyncio.Event()

    async def wait_for_the_other(inputs: Mapping[str, Value]) -> Value:
        await arrived.wait()
        return listed("slow")

    async def arrive(inputs: Mapping[str, Value]) -> Value:
        arrived.set()
        return listed("quick")

    steps = {
        "slow": Step(Tiny(wait_for_the_other)),
        "a": Step(Tiny(give)),
        "b": Step(Tiny(give), ("a",)),
        "c": Step(Tiny(arrive), ("b",)),
        "end": Step(Tiny(give), ("slow", "c")),
    }
    assert (await run(steps)).output.ids[:2] == ["slow", "quick"]


@st.composite
def dags(draw: st.DrawFn) -> dict[str, tuple[tuple[str, ...], int, bool]]:
    """Draw, for each node, what it consumes, how often it yields, and whether it is skipped."""
    count = draw(st.integers(1, 9))
    drawn: dict[str, tuple[tuple[str, ...], int, bool]] = {}
    for number in range(count):
        earlier = list(drawn)
        consumes = draw(st.lists(st.sampled_from(earlier), unique=True)) if earlier else []
        skipped = draw(st.booleans()) and number < count - 1
        drawn[f"n{number}"] = (tuple(consumes), draw(st.integers(0, 3)), skipped)
    consumed = {name for consumes, _, _ in drawn.values() for name in consumes}
    drawn["end"] = (tuple(name for name in drawn if name not in consumed), 0, False)
    return drawn


@settings(max_examples=150)
@given(drawn=dags())
def test_each_node_runs_once_after_its_inputs(
    drawn: dict[str, tuple[tuple[str, ...], int, bool]],
) -> None:
    finished: list[str] = []

    def working(name: str, consumes: tuple[str, ...], turns: int) -> Work:
        async def work(inputs: Mapping[str, Value]) -> Value:
            assert tuple(inputs) == consumes
            assert {consumed for consumed in consumes if not drawn[consumed][2]} <= set(finished)
            for _ in range(turns):
                await asyncio.sleep(0)
            finished.append(name)
            return listed(name)

        return work

    steps = {
        name: Step(Tiny(working(name, consumes, turns)), consumes, when="go < 0" if skip else None)
        for name, (consumes, turns, skip) in drawn.items()
    }
    result = asyncio.run(run(steps, {"go": 1}, trace=True))
    assert sorted(finished) == sorted(name for name, (_, _, skip) in drawn.items() if not skip)
    assert sorted(span.node for span in result.spans) == sorted(drawn)
    assert result.output.ids == ["end"]


async def test_a_node_is_retried_and_its_span_has_the_error() -> None:
    node = Tiny(failing(ConnectionError("gone"), times=2))
    result = await run({"a": Step(node, attempts=3)}, trace=True)
    assert result.output.ids == ["at last"]
    (span,) = result.spans
    assert (span.attempts, span.state, span.error) == (3, "ok", "gone")


@pytest.mark.parametrize("alone", [True, False])
async def test_a_node_that_keeps_failing_fails_the_flow(alone: bool) -> None:
    node = Tiny(failing(ConnectionError("gone")))
    steps = {"a": Step(node, attempts=3)}
    if not alone:
        steps["b"] = Step(Tiny(give), ("a",))
    with pytest.raises(NodeError, match="flow 'tiny', node 'a': gone") as caught:
        await run(steps)
    assert (caught.value.flow, caught.value.node) == ("tiny", "a")
    assert isinstance(caught.value.__cause__, ConnectionError)
    assert len(node.given) == 3


async def test_an_error_without_a_message_is_reported_by_its_type() -> None:
    with pytest.raises(NodeError, match="node 'a': KeyError"):
        await run({"a": Step(Tiny(failing(KeyError())))})


async def test_a_node_falls_back_to_empty_after_its_attempts() -> None:
    node, end = Tiny(failing(ConnectionError("gone"))), Tiny(give)
    steps = {"a": Step(node, attempts=2, falls_back=True), "end": Step(end, ("a",))}
    result = await run(steps, trace=True)
    assert result.output.ids == ["#0"]
    empty = end.given[0]["a"]
    assert isinstance(empty, Candidates)
    assert (empty.ids, list(empty.columns)) == ([], ["score"])
    assert empty.columns["score"].shape == (0,)
    span = result.spans[0]
    assert (span.state, span.attempts, span.size, span.error) == ("fallback", 2, 0, "gone")


async def test_a_node_is_not_retried_if_its_model_failed() -> None:
    node = Tiny(failing(ModelFailed("clicks", "no such row")))
    with pytest.raises(ModelFailed, match="model 'clicks': no such row"):
        await run({"a": Step(node, attempts=3)})
    assert len(node.given) == 1


async def test_a_node_is_not_retried_if_it_was_refused_under_overload() -> None:
    node = Tiny(failing(Overloaded("too many requests wait")))
    with pytest.raises(Overloaded, match="too many requests wait"):
        await run({"a": Step(node, attempts=3)})
    assert len(node.given) == 1


async def test_a_node_falls_back_without_a_retry_if_its_model_failed() -> None:
    node, end = Tiny(failing(ModelFailed("clicks", "no such row"))), Tiny(give)
    steps = {"a": Step(node, attempts=3, falls_back=True), "end": Step(end, ("a",))}
    result = await run(steps, trace=True)
    assert len(node.given) == 1
    assert (result.spans[0].state, result.spans[0].attempts) == ("fallback", 1)


async def test_a_node_of_interactions_falls_back_to_empty_interactions() -> None:
    node, end = Tiny(failing(OSError("gone")), Shape(Interactions)), Tiny(give)
    await run({"a": Step(node, falls_back=True), "end": Step(end, ("a",))})
    assert isinstance(end.given[0]["a"], Interactions)
    assert len(end.given[0]["a"]) == 0


@pytest.mark.parametrize("alone", [True, False])
async def test_the_error_names_a_node_that_exceeds_its_timeout(alone: bool) -> None:
    node = Tiny(forever)
    steps = {"a": Step(node, timeout_s=0.001, attempts=2)}
    if not alone:
        steps["b"] = Step(Tiny(give), ("a",))
    with pytest.raises(DeadlineExceeded, match="flow 'tiny', node 'a': no answer in 1 ms"):
        await run(steps)
    assert len(node.given) == 2


async def test_a_node_that_exceeds_its_timeout_falls_back() -> None:
    steps = {"a": Step(Tiny(forever), timeout_s=0.001, falls_back=True)}
    result = await run(steps, trace=True)
    assert result.output.ids == []
    assert result.spans[0].error == "no answer in 1 ms"


@pytest.mark.parametrize(
    "error",
    [
        InvalidInput("'user_id' is missing", field="context.user_id"),
        TooLarge("too many", field="context.user_id"),
        Unknown("event_type", "clik", field="event"),
    ],
)
@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize("falls_back", [True, False])
async def test_invalid_requests_cause_neither_retries_nor_fallbacks(
    error: Exception, alone: bool, falls_back: bool
) -> None:
    node = Tiny(failing(error))
    steps = {"a": Step(node, attempts=5, falls_back=falls_back)}
    if not alone:
        steps["b"] = Step(Tiny(give), ("a",))
    with pytest.raises(type(error)) as caught:
        await run(steps)
    assert caught.value is error
    assert len(node.given) == 1


async def test_a_node_is_retried_if_a_part_is_unavailable() -> None:
    node = Tiny(failing(Unavailable("down"), times=1))
    assert (await run({"a": Step(node, attempts=2)})).output.ids == ["at last"]


async def test_a_failing_node_cancels_the_others() -> None:
    started, cancelled = asyncio.Event(), asyncio.Event()

    async def hang(inputs: Mapping[str, Value]) -> Value:
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise
        raise AssertionError("unreachable")

    async def fail(inputs: Mapping[str, Value]) -> Value:
        await started.wait()
        raise ValueError("no")

    end = Tiny(give)
    steps = {
        "slow": Step(Tiny(hang)),
        "bad": Step(Tiny(fail)),
        "end": Step(end, ("slow", "bad")),
    }
    with pytest.raises(NodeError, match="node 'bad': no"):
        await run(steps)
    assert cancelled.is_set()
    assert end.given == []


async def test_cancelling_a_flow_cancels_its_nodes() -> None:
    started, cancelled = asyncio.Event(), asyncio.Event()

    async def hang(inputs: Mapping[str, Value]) -> Value:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        raise AssertionError("unreachable")

    steps = {"a": Step(Tiny(hang)), "b": Step(Tiny(hang)), "end": Step(Tiny(give), ("a", "b"))}
    task = asyncio.create_task(run(steps))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert cancelled.is_set()


async def test_a_chain_of_nodes_runs_in_the_callers_task() -> None:
    tasks: set[object] = set()

    async def record_task(inputs: Mapping[str, Value]) -> Value:
        tasks.add(asyncio.current_task())
        return listed("a")

    await run({"a": Step(Tiny(record_task)), "b": Step(Tiny(record_task), ("a",))})
    assert tasks == {asyncio.current_task()}


@pytest.mark.parametrize("first", ["slow", "bad"])
async def test_the_first_failure_is_raised_from_any_branch(first: str) -> None:
    async def fail(inputs: Mapping[str, Value]) -> Value:
        await asyncio.sleep(0)
        raise ValueError("no")

    branches = {"bad": Step(Tiny(fail)), "slow": Step(Tiny(forever))}
    steps = {name: branches[name] for name in sorted(branches, key=lambda name: name != first)}
    with pytest.raises(NodeError, match="node 'bad': no"):
        await run({**steps, "end": Step(Tiny(give), ("slow", "bad"))})


@pytest.mark.parametrize(("age", "runs"), [(20, True), (18, False), ("", False)])
async def test_a_condition_on_the_context_decides_whether_a_node_runs(
    age: object, runs: bool
) -> None:
    node, end = Tiny(give), Tiny(give)
    when = "age > 18" if age else "age == 'x'"
    result = await run(
        {"a": Step(node, when=when), "end": Step(end, ("a",))}, {"age": age}, trace=True
    )
    assert len(node.given) == runs
    assert len(end.given) == 1
    span = next(span for span in result.spans if span.node == "a")
    assert (span.state, span.attempts, span.size) == (("ok", 1, 1) if runs else ("skipped", 0, 0))


@pytest.mark.parametrize(("least", "runs"), [(0, True), (1, False)])
async def test_a_condition_may_refer_to_a_node_that_is_not_consumed(least: int, runs: bool) -> None:
    started = asyncio.Event()

    async def late(inputs: Mapping[str, Value]) -> Value:
        await asyncio.sleep(0)
        assert not started.is_set()
        return listed("one")

    async def begin(inputs: Mapping[str, Value]) -> Value:
        started.set()
        assert inputs == {}
        return listed("ran")

    steps = {
        "seen": Step(Tiny(late)),
        "more": Step(Tiny(begin), when=f"size(seen) > {least}"),
        "end": Step(Tiny(give), ("seen", "more")),
    }
    result = await run(steps)
    assert started.is_set() == runs
    assert result.output.ids[: 1 + runs] == (["one", "ran"] if runs else ["one"])


async def test_conditions_see_skipped_nodes_and_fallbacks_as_empty() -> None:
    steps = {
        "a": Step(Tiny(failing(OSError("gone"))), falls_back=True),
        "b": Step(Tiny(give), when="size(a) > 0"),
        "c": Step(Tiny(give), when="size(b) == 0"),
        "end": Step(Tiny(give), ("a", "b", "c")),
    }
    result = await run(steps, trace=True)
    assert {span.node: span.state for span in result.spans} == {
        "a": "fallback",
        "b": "skipped",
        "c": "ok",
        "end": "ok",
    }


@pytest.mark.parametrize("alone", [True, False])
async def test_the_error_names_the_variable_that_a_condition_lacks(alone: bool) -> None:
    steps = {"a": Step(Tiny(give), when="age > 18", falls_back=True, attempts=3)}
    if not alone:
        steps["b"] = Step(Tiny(give), ("a",))
    with pytest.raises(
        InvalidInput, match=r"'age' is missing in the context: .* 'a' needs it"
    ) as caught:
        await run(steps)
    assert caught.value.field == "context.age"


@pytest.mark.parametrize(
    ("when", "value"),
    [
        ("age > 18", "old"),
        ("age > 18", None),
        ("age > 18", [1, 2]),
        ("not age", [1, 2]),
        ("abs(age) > 1", {"a": 1}),
        ("clip(age, 0, 1) > 0", [1, 2]),
    ],
)
async def test_a_context_value_that_a_condition_cannot_use_is_refused(
    when: str, value: object
) -> None:
    """The value comes from the client, so the error is `InvalidInput` and not `NodeError`."""
    with pytest.raises(InvalidInput):
        await run({"a": Step(Tiny(give), when=when)}, {"age": value})


async def test_without_trace_there_are_no_spans() -> None:
    assert (await run({"a": Step(Tiny(give))})).spans == []


async def test_spans_are_in_the_order_in_which_nodes_started() -> None:
    steps = {
        "a": Step(Tiny(give)),
        "b": Step(Tiny(give), ("a",)),
        "end": Step(Tiny(give), ("b",)),
    }
    spans = (await run(steps, trace=True)).spans
    assert [(span.node, span.op, span.size) for span in spans] == [
        ("a", "tiny", 1),
        ("b", "tiny", 2),
        ("end", "tiny", 3),
    ]
    assert all(span.start_ms >= 0 and span.took_ms >= 0 for span in spans)
    starts = [span.start_ms for span in spans]
    assert starts == sorted(starts)


async def test_concurrent_runs_of_a_graph_are_independent() -> None:
    """All requests share one compiled graph, but not the values of its nodes."""

    async def work(inputs: Mapping[str, Value]) -> Value:
        await asyncio.sleep(0)
        return await give(inputs)

    steps = {
        "a": Step(Tiny(work)),
        "b": Step(Tiny(work), ("a",)),
        "c": Step(Tiny(work), ("a", "b")),
    }
    graph, no_services = graph_of(steps), NoServices()
    call = Call({}, Services(no_services, no_services, no_services), REQUEST)
    results = await asyncio.gather(
        *(Execution(graph, call, Metrics(), trace=True).run() for _ in range(50))
    )
    assert {tuple(result.output.ids) for result in results} == {("#0", "#1", "#3")}
    assert {len(result.spans) for result in results} == {3}


async def test_an_unknown_flow_is_refused_with_a_suggestion(shop: Shop) -> None:
    with pytest.raises(Unknown, match="did you mean 'for_you'") as caught:
        await shop.flows.run(FlowRequest("for_yu", {}), shop.request())
    assert (caught.value.code, caught.value.field) == ("unknown_flow", "name")


async def test_the_flow_of_the_shop_runs(shop: Shop) -> None:
    result = await shop.flows.run(
        FlowRequest("for_you", {"user_id": 7}, trace=True), shop.request()
    )
    assert result.output.ids == []
    assert {span.node for span in result.spans} == {
        "recent",
        "seen",
        "similar",
        "unseen",
        "ranked",
        "top",
    }


@pytest.mark.parametrize("sent", ["7", "%99999999d"])
async def test_the_error_names_the_variable_that_must_be_a_number(sent: str) -> None:
    with pytest.raises(InvalidInput, match="'age' must be a number") as caught:
        await run({"a": Step(Tiny(give), when="age % 2 == 1")}, {"age": sent})
    assert caught.value.field == "context.age"
