"""Compiling a flow: any graph that can run is taken, nothing else, and order respects edges."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kirana.catalog.directory import DirectoryCatalog
from kirana.catalog.objects import FlowObject
from kirana.catalog.snapshot import Catalog
from kirana.errors import CatalogError
from kirana.flow.graph import Graph, compile_flow
from kirana.serving.checks import checks_of
from tests.support import write_shop

MERGE: dict[str, Any] = {"op": "merge"}
POPULAR: dict[str, Any] = {"op": "candidates", "with": {"cg_name": "popular"}}
POPULAR_GENERATOR = """
---
kind: candidate_generator
name: popular
generator: stored_list
with:
  ids: product.similar.ids
  weights: product.similar.weights
  keys: {product_id: popular}
"""


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    folder: Path = write_shop(tmp_path_factory.mktemp("shop"))
    with (folder / "shop.yaml").open("a") as file:
        file.write(POPULAR_GENERATOR)
    return DirectoryCatalog(folder, checks_of()).check().catalog


def flow(graph: dict[str, list[str]], nodes: dict[str, dict[str, Any]]) -> FlowObject:
    return FlowObject.model_validate({"name": "f", "graph": graph, "nodes": nodes})


def sources_and_merges(graph: dict[str, list[str]]) -> FlowObject:
    """Make each node that consumes nothing a generator, every other one a merge."""
    consuming = {each for consumers in graph.values() for each in consumers}
    return flow(graph, {name: MERGE if name in consuming else POPULAR for name in graph})


@st.composite
def graphs(draw: st.DrawFn) -> dict[str, list[str]]:
    """Draw an adjacency list of up to eight nodes, with any edges: cycles and loops too."""
    names = draw(st.permutations([f"n{at}" for at in range(draw(st.integers(1, 8)))]))
    pairs = st.tuples(st.sampled_from(names), st.sampled_from(names))
    edges = draw(st.sets(pairs, max_size=12))
    return {name: sorted(to for source, to in edges if source == name) for name in names}


@st.composite
def dags(draw: st.DrawFn) -> dict[str, list[str]]:
    """Draw an acyclic adjacency list with one sink, written in any order."""
    count = draw(st.integers(1, 9))
    graph: dict[str, list[str]] = {}
    for at in range(count):
        later = [f"n{each}" for each in range(at + 1, count)]
        graph[f"n{at}"] = (
            draw(st.lists(st.sampled_from(later), min_size=1, unique=True)) if later else []
        )
    return {name: graph[name] for name in draw(st.permutations(sorted(graph)))}


def has_cycle(graph: dict[str, list[str]]) -> bool:
    left = {name: set(consumers) for name, consumers in graph.items()}
    while ends := [name for name, consumers in left.items() if not consumers]:
        for end in ends:
            del left[end]
        for consumers in left.values():
            consumers.difference_update(ends)
    return bool(left)


def check_order(graph: dict[str, list[str]], compiled: Graph) -> None:
    names = [node.name for node in compiled.nodes]
    assert sorted(names) == sorted(graph)
    for at, node in enumerate(compiled.nodes):
        assert {names[each] for each in node.consumers} == set(graph[node.name])
        assert set(node.inputs) == {name for name in graph if node.name in graph[name]}
        assert all(each > at for each in node.consumers)
        assert node.waits_for == len(node.inputs)
    assert {names[at] for at in compiled.roots} == {
        node.name for node in compiled.nodes if not node.inputs
    }


@given(graph=graphs())
def test_a_graph_compiles_if_it_is_acyclic_and_has_one_output(
    catalog: Catalog, graph: dict[str, list[str]]
) -> None:
    sinks = [name for name, consumers in graph.items() if not consumers]
    fits = not has_cycle(graph) and len(sinks) == 1
    if not fits:
        with pytest.raises(CatalogError) as caught:
            compile_flow(sources_and_merges(graph), catalog)
        assert [problem.path for problem in caught.value.problems] == ["graph"]
    else:
        compiled = compile_flow(sources_and_merges(graph), catalog)
        assert compiled.output == sinks[0]
        check_order(graph, compiled)


@given(graph=dags())
def test_each_node_comes_after_all_that_it_consumes(
    catalog: Catalog, graph: dict[str, list[str]]
) -> None:
    check_order(graph, compile_flow(sources_and_merges(graph), catalog))


@given(graph=dags(), data=st.data())
def test_a_condition_makes_its_node_wait_without_consuming(
    catalog: Catalog, graph: dict[str, list[str]], data: st.DataObject
) -> None:
    made = sources_and_merges(graph)
    order = [node.name for node in compile_flow(made, catalog).nodes]
    later = data.draw(st.integers(0, len(order) - 1))
    looked_at = data.draw(st.sets(st.sampled_from(order[: later + 1])))
    looked_at.discard(order[later])
    when = " or ".join(f"size({name}) > age" for name in sorted(looked_at)) or "age > 1"
    record = made.model_dump(by_alias=True)
    record["nodes"][order[later]]["when"] = when
    record["context"] = {"age": "number"}
    compiled = compile_flow(FlowObject.model_validate(record), catalog)
    names = [node.name for node in compiled.nodes]
    node = compiled.nodes[names.index(order[later])]
    assert node.waits_for == len(set(node.inputs) | looked_at)
    for name in looked_at:
        at = names.index(name)
        assert at < names.index(node.name)
        assert compiled.nodes[at].consumers.count(names.index(node.name)) == 1


def test_a_node_carries_its_limits(catalog: Catalog) -> None:
    limits = {"timeout_ms": 40, "retries": 2, "fallback": "empty"}
    nodes = {"a": {**POPULAR, **limits}, "b": MERGE}
    a, b = compile_flow(flow({"a": ["b"], "b": []}, nodes), catalog).nodes
    assert (a.timeout_s, a.attempts, a.falls_back, a.op) == (0.04, 3, True, "candidates")
    assert (b.timeout_s, b.attempts, b.falls_back, b.when) == (None, 1, False, None)


def test_a_condition_on_the_node_itself_is_a_circle(catalog: Catalog) -> None:
    nodes = {"a": {**POPULAR, "when": "size(a) > 0"}}
    with pytest.raises(CatalogError, match="a -> a"):
        compile_flow(flow({"a": []}, nodes), catalog)


def test_the_circle_is_drawn(catalog: Catalog) -> None:
    graph = {"a": ["b"], "b": ["c"], "c": ["b", "d"], "d": []}
    with pytest.raises(CatalogError) as caught:
        compile_flow(sources_and_merges(graph), catalog)
    (problem,) = caught.value.problems
    drawn = problem.message.removeprefix("the graph has a cycle: ").split(" -> ")
    assert set(drawn) == {"b", "c"}
    assert all(to in graph[source] for source, to in pairwise(drawn)), drawn


def test_all_broken_nodes_are_named_together(catalog: Catalog) -> None:
    nodes: dict[str, dict[str, Any]] = {
        "a": {"op": "candidatess"},
        "b": {"op": "candidates", "with": {}},
        "c": {"op": "top_k", "with": {"k": 0, "bye": "x"}},
    }
    with pytest.raises(CatalogError) as caught:
        compile_flow(flow({"b": ["c"], "a": ["c"], "c": []}, nodes), catalog)
    assert {problem.path for problem in caught.value.problems} == {"nodes.a.op", "nodes.b.with"}
