"""Compiling a flow: which graphs are accepted, and the order of their nodes."""

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
from kirana.serving.checks import catalog_checks
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
    return DirectoryCatalog(folder, catalog_checks()).check().catalog


def flow(graph: dict[str, list[str]], nodes: dict[str, dict[str, Any]]) -> FlowObject:
    return FlowObject.model_validate({"name": "f", "graph": graph, "nodes": nodes})


def sources_and_merges(graph: dict[str, list[str]]) -> FlowObject:
    """Build a flow: nodes that consume nothing are generators, and all others are merges."""
    consuming = {consumer for consumers in graph.values() for consumer in consumers}
    return flow(graph, {name: MERGE if name in consuming else POPULAR for name in graph})


@st.composite
def graphs(draw: st.DrawFn) -> dict[str, list[str]]:
    """Draw an adjacency list of up to eight nodes, which may have cycles and self-loops."""
    names = draw(st.permutations([f"n{i}" for i in range(draw(st.integers(1, 8)))]))
    pairs = st.tuples(st.sampled_from(names), st.sampled_from(names))
    edges = draw(st.sets(pairs, max_size=12))
    return {name: sorted(to for source, to in edges if source == name) for name in names}


@st.composite
def dags(draw: st.DrawFn) -> dict[str, list[str]]:
    """Draw an acyclic adjacency list with one sink, with its nodes in any order."""
    count = draw(st.integers(1, 9))
    graph: dict[str, list[str]] = {}
    for number in range(count):
        later = [f"n{i}" for i in range(number + 1, count)]
        graph[f"n{number}"] = (
            draw(st.lists(st.sampled_from(later), min_size=1, unique=True)) if later else []
        )
    return {name: graph[name] for name in draw(st.permutations(sorted(graph)))}


def has_cycle(graph: dict[str, list[str]]) -> bool:
    remaining = {name: set(consumers) for name, consumers in graph.items()}
    while sinks := [name for name, consumers in remaining.items() if not consumers]:
        for sink in sinks:
            del remaining[sink]
        for consumers in remaining.values():
            consumers.difference_update(sinks)
    return bool(remaining)


def check_order(graph: dict[str, list[str]], compiled: Graph) -> None:
    """Assert that the nodes and edges are those of `graph`, each node before its consumers."""
    names = [node.name for node in compiled.nodes]
    assert sorted(names) == sorted(graph)
    for position, node in enumerate(compiled.nodes):
        assert {names[follower] for follower in node.followers} == set(graph[node.name])
        assert set(node.inputs) == {name for name in graph if node.name in graph[name]}
        assert all(follower > position for follower in node.followers)
        assert node.wait_count == len(node.inputs)
    assert {names[root] for root in compiled.roots} == {
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
def test_a_node_comes_after_every_node_that_it_consumes(
    catalog: Catalog, graph: dict[str, list[str]]
) -> None:
    check_order(graph, compile_flow(sources_and_merges(graph), catalog))


@given(graph=dags(), data=st.data())
def test_a_node_waits_for_the_nodes_of_its_condition_without_consuming_them(
    catalog: Catalog, graph: dict[str, list[str]], data: st.DataObject
) -> None:
    flow_object = sources_and_merges(graph)
    order = [node.name for node in compile_flow(flow_object, catalog).nodes]
    position = data.draw(st.integers(0, len(order) - 1))
    referenced = data.draw(st.sets(st.sampled_from(order[: position + 1])))
    referenced.discard(order[position])
    when = " or ".join(f"size({name}) > age" for name in sorted(referenced)) or "age > 1"
    record = flow_object.model_dump(by_alias=True)
    record["nodes"][order[position]]["when"] = when
    record["context"] = {"age": "number"}
    compiled = compile_flow(FlowObject.model_validate(record), catalog)
    names = [node.name for node in compiled.nodes]
    node = compiled.nodes[names.index(order[position])]
    assert node.wait_count == len(set(node.inputs) | referenced)
    for name in referenced:
        index = names.index(name)
        assert index < names.index(node.name)
        assert compiled.nodes[index].followers.count(names.index(node.name)) == 1


def test_a_compiled_node_has_its_limits(catalog: Catalog) -> None:
    limits = {"timeout_ms": 40, "retries": 2, "fallback": "empty"}
    nodes = {"a": {**POPULAR, **limits}, "b": MERGE}
    a, b = compile_flow(flow({"a": ["b"], "b": []}, nodes), catalog).nodes
    assert (a.timeout_s, a.attempts, a.falls_back, a.op) == (0.04, 3, True, "candidates")
    assert (b.timeout_s, b.attempts, b.falls_back, b.when) == (None, 1, False, None)


def test_a_condition_on_the_node_itself_is_a_cycle(catalog: Catalog) -> None:
    nodes = {"a": {**POPULAR, "when": "size(a) > 0"}}
    with pytest.raises(CatalogError, match="a -> a"):
        compile_flow(flow({"a": []}, nodes), catalog)


def test_the_error_shows_the_cycle(catalog: Catalog) -> None:
    graph = {"a": ["b"], "b": ["c"], "c": ["b", "d"], "d": []}
    with pytest.raises(CatalogError) as caught:
        compile_flow(sources_and_merges(graph), catalog)
    (problem,) = caught.value.problems
    cycle = problem.message.removeprefix("the graph has a cycle: ").split(" -> ")
    assert set(cycle) == {"b", "c"}
    assert all(to in graph[source] for source, to in pairwise(cycle)), cycle


def test_invalid_nodes_are_reported_together(catalog: Catalog) -> None:
    nodes: dict[str, dict[str, Any]] = {
        "a": {"op": "candidatess"},
        "b": {"op": "candidates", "with": {}},
        "c": {"op": "top_k", "with": {"k": 0, "bye": "x"}},
    }
    with pytest.raises(CatalogError) as caught:
        compile_flow(flow({"b": ["c"], "a": ["c"], "c": []}, nodes), catalog)
    assert {problem.path for problem in caught.value.problems} == {"nodes.a.op", "nodes.b.with"}
