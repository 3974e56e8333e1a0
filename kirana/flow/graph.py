"""A flow, checked and compiled: nodes in order, who consumes whom, one output.

Nothing here runs a node; `kirana.flow.executor` does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter

from kirana.catalog.objects import FlowObject, NodeObject
from kirana.catalog.snapshot import Catalog
from kirana.errors import CatalogError, InvalidInput, Problem, did_you_mean
from kirana.expressions import Expression, Kind
from kirana.flow.nodes import OPS
from kirana.flow.nodes.base import Node, Site
from kirana.flow.values import Candidates, Shape


@dataclass(frozen=True, slots=True)
class GraphNode:
    """`inputs` are the nodes whose values it consumes; `waits_for` how many it must wait for."""

    name: str
    op: str
    node: Node
    inputs: tuple[str, ...]
    consumers: tuple[int, ...]
    waits_for: int
    timeout_s: float | None
    attempts: int
    falls_back: bool
    when: Expression | None


@dataclass(frozen=True, slots=True)
class Graph:
    """Nodes in an order in which each comes after all that it waits for."""

    name: str
    nodes: tuple[GraphNode, ...]
    roots: tuple[int, ...]
    output: str


def compile_flow(flow: FlowObject, catalog: Catalog) -> Graph:
    """Raises `CatalogError` with a `Problem` for each thing that does not fit."""
    inputs = _inputs_of(flow)
    conditions = _conditions_of(flow, _kinds_of(flow, catalog))
    waits = _waits_of(flow, inputs, conditions)
    order = _order(waits)
    sinks = [name for name in order if not flow.graph[name]]
    if len(sinks) != 1:
        raise CatalogError(
            [
                Problem(
                    "a flow must have exactly one output, a node that no other node consumes: "
                    f"{sinks}",
                    path="graph",
                )
            ]
        )
    nodes = _build_nodes(flow, catalog, order, inputs)
    if nodes[sinks[0]].gives.type is not Candidates:
        raise CatalogError(
            [Problem("the output of a flow must be candidates", path=f"nodes.{sinks[0]}")]
        )
    position = {name: at for at, name in enumerate(order)}
    compiled = tuple(
        _graph_node(
            name, flow.nodes[name], nodes[name], inputs[name], waits, position, conditions.get(name)
        )
        for name in order
    )
    roots = tuple(position[name] for name in order if not waits[name])
    return Graph(flow.name, compiled, roots, sinks[0])


def _graph_node(
    name: str,
    config: NodeObject,
    node: Node,
    inputs: list[str],
    waits: Mapping[str, list[str]],
    position: Mapping[str, int],
    when: Expression | None,
) -> GraphNode:
    return GraphNode(
        name=name,
        op=config.op,
        node=node,
        inputs=tuple(inputs),
        consumers=tuple(position[each] for each in position if name in waits[each]),
        waits_for=len(waits[name]),
        timeout_s=config.timeout_ms / 1000 if config.timeout_ms else None,
        attempts=1 + config.retries,
        falls_back=config.fallback == "empty",
        when=when,
    )


def _inputs_of(flow: FlowObject) -> dict[str, list[str]]:
    """Turn the adjacency list (node -> consumers) round: node -> what it consumes."""
    problems = []
    inputs: dict[str, list[str]] = {name: [] for name in flow.graph}
    for name, consumers in flow.graph.items():
        if name not in flow.nodes:
            hint = did_you_mean(name, flow.nodes)
            problems.append(
                Problem(f"'{name}' is not among the nodes: {hint}", path=f"graph.{name}")
            )
        for at, consumer in enumerate(consumers):
            if consumer not in flow.graph:
                hint = did_you_mean(consumer, flow.graph)
                message = f"'{consumer}' is no node of the graph: {hint}"
                problems.append(Problem(message, path=f"graph.{name}[{at}]"))
            elif name in inputs[consumer]:
                message = f"'{consumer}' is given twice"
                problems.append(Problem(message, path=f"graph.{name}[{at}]"))
            else:
                inputs[consumer].append(name)
    for name in flow.nodes:
        if name not in flow.graph:
            message = f"'{name}' is not in the graph: add it with the nodes that consume it"
            problems.append(Problem(message, path=f"nodes.{name}"))
    if problems:
        raise CatalogError(problems)
    return inputs


def _kinds_of(flow: FlowObject, catalog: Catalog) -> dict[str, Kind]:
    """Return what each name of a condition stands for: an id, what is declared, or a node."""
    if not flow.context and not any(node.when for node in flow.nodes.values()):
        # nothing looks at them, so they don't matter to this flow
        return {}
    kinds = dict.fromkeys(catalog.id_names, Kind.TEXT)
    problems = []
    for name, kind in flow.context.items():
        if name in flow.nodes:
            message = f"'{name}' is the name of a node too"
            problems.append(Problem(message, path=f"context.{name}"))
        if name in kinds and kind != "text":
            message = f"'{name}' is an id, and ids are text: number({name}) makes a number of it"
            problems.append(Problem(message, path=f"context.{name}"))
        kinds[name] = Kind.NUMBER if kind == "number" else Kind.TEXT
    if problems:
        raise CatalogError(problems)
    return kinds | dict.fromkeys(flow.nodes, Kind.ITEMS)


def _conditions_of(flow: FlowObject, kinds: Mapping[str, Kind]) -> dict[str, Expression]:
    problems, conditions = [], {}
    for name, node in flow.nodes.items():
        if node.when is not None:
            try:
                conditions[name] = Expression(node.when)
                conditions[name].require_kinds(kinds)
            except InvalidInput as error:
                problems.append(Problem(error.message, path=f"nodes.{name}.when"))
    if problems:
        raise CatalogError(problems)
    return conditions


def _waits_of(
    flow: FlowObject, inputs: Mapping[str, list[str]], conditions: Mapping[str, Expression]
) -> dict[str, list[str]]:
    """A node waits for what it consumes, and for the nodes that its condition looks at."""
    waits = {}
    for name in flow.graph:
        looked_at = sorted(conditions[name].names & flow.nodes.keys()) if name in conditions else []
        waits[name] = list(dict.fromkeys([*inputs[name], *looked_at]))
    return waits


def _order(waits: Mapping[str, list[str]]) -> list[str]:
    try:
        return list(TopologicalSorter(waits).static_order())
    except CycleError as error:
        circle = " -> ".join(error.args[1])
        raise CatalogError([Problem(f"the graph has a cycle: {circle}", path="graph")]) from None


def _build_nodes(
    flow: FlowObject, catalog: Catalog, order: list[str], inputs: Mapping[str, list[str]]
) -> dict[str, Node]:
    problems: list[Problem] = []
    nodes: dict[str, Node] = {}
    for name in order:
        config = flow.nodes[name]
        if config.op not in OPS:
            hint = did_you_mean(config.op, OPS)
            problems.append(Problem(f"unknown op '{config.op}': {hint}", path=f"nodes.{name}.op"))
            continue
        if any(each not in nodes for each in inputs[name]):
            continue
        shapes: dict[str, Shape] = {each: nodes[each].gives for each in inputs[name]}
        try:
            nodes[name] = OPS[config.op](config.parameters, Site(name, catalog, shapes))
        except CatalogError as error:
            problems += [
                Problem(each.message, path=f"nodes.{name}" + (f".{each.path}" if each.path else ""))
                for each in error.problems
            ]
    if problems:
        raise CatalogError(problems)
    return nodes
