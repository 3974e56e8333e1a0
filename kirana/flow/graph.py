"""The graph of a flow, checked and compiled. `kirana.flow.executor` runs it."""

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
    """One node of a graph.

    `inputs` are the names of the nodes that it consumes, `followers` the positions of the nodes
    that wait for it, and `wait_count` is the number of nodes that it waits for. The node is run at
    most `attempts` times, each time for at most `timeout_s` seconds (None: no limit), and only if
    the condition `when` holds (None: always). If the node fails and `falls_back` is True, its value
    is empty.
    """

    name: str
    op: str
    node: Node
    inputs: tuple[str, ...]
    followers: tuple[int, ...]
    wait_count: int
    timeout_s: float | None
    attempts: int
    falls_back: bool
    when: Expression | None


@dataclass(frozen=True, slots=True)
class Graph:
    """A compiled flow. Each of `nodes` comes after all nodes that it waits for.

    `roots` are the positions of the nodes that wait for no other node. `output` is the name of the
    node whose value is the result.
    """

    name: str
    nodes: tuple[GraphNode, ...]
    roots: tuple[int, ...]
    output: str


def compile_flow(flow: FlowObject, catalog: Catalog) -> Graph:
    """Return the graph of a flow.

    Raise `CatalogError` with a `Problem` for each error. Later checks are made only if earlier ones
    find nothing.
    """
    inputs = _inputs_of(flow)
    conditions = _conditions_of(flow, _kinds_of(flow, catalog))
    waits = _waits_of(flow, inputs, conditions)
    order = _order(waits)
    sinks = [name for name in order if not flow.graph[name]]
    if len(sinks) != 1:
        raise CatalogError(
            [
                Problem(
                    "a flow must have exactly one output (a node that no other node consumes), "
                    f"not {len(sinks)}: {', '.join(map(repr, sinks))}",
                    path="graph",
                )
            ]
        )
    nodes = _build_nodes(flow, catalog, order, inputs)
    if nodes[sinks[0]].gives.type is not Candidates:
        raise CatalogError(
            [Problem("the output of a flow must be candidates", path=f"nodes.{sinks[0]}")]
        )
    positions = {name: i for i, name in enumerate(order)}
    compiled = tuple(
        _graph_node(
            name,
            flow.nodes[name],
            nodes[name],
            inputs[name],
            waits,
            positions,
            conditions.get(name),
        )
        for name in order
    )
    roots = tuple(positions[name] for name in order if not waits[name])
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
    """Return one node of the graph; `position` has the position of each node."""
    return GraphNode(
        name=name,
        op=config.op,
        node=node,
        inputs=tuple(inputs),
        followers=tuple(position[other] for other in position if name in waits[other]),
        wait_count=len(waits[name]),
        timeout_s=config.timeout_ms / 1000 if config.timeout_ms else None,
        attempts=1 + config.retries,
        falls_back=config.fallback == "empty",
        when=when,
    )


def _inputs_of(flow: FlowObject) -> dict[str, list[str]]:
    """Return the names of the nodes that each node consumes.

    `flow.graph` has the reverse: the nodes that consume each node. Raise `CatalogError` if
    `flow.graph` has an unknown node, has a consumer twice, or lacks a node.
    """
    problems = []
    inputs: dict[str, list[str]] = {name: [] for name in flow.graph}
    for name, consumers in flow.graph.items():
        if name not in flow.nodes:
            hint = did_you_mean(name, flow.nodes)
            problems.append(Problem(f"unknown node '{name}': {hint}", path=f"graph.{name}"))
        for position, consumer in enumerate(consumers):
            if consumer not in flow.graph:
                hint = did_you_mean(consumer, flow.graph)
                message = f"unknown node '{consumer}': {hint}"
                problems.append(Problem(message, path=f"graph.{name}[{position}]"))
            elif name in inputs[consumer]:
                message = f"'{consumer}' is given twice"
                problems.append(Problem(message, path=f"graph.{name}[{position}]"))
            else:
                inputs[consumer].append(name)
    for name in flow.nodes:
        if name not in flow.graph:
            message = f"'{name}' is not in the graph: add it, and list the nodes that consume it"
            problems.append(Problem(message, path=f"nodes.{name}"))
    if problems:
        raise CatalogError(problems)
    return inputs


def _kinds_of(flow: FlowObject, catalog: Catalog) -> dict[str, Kind]:
    """Return the kind of each name that a condition may use: ids, declared values and nodes.

    Raise `CatalogError` if the declared values conflict with ids or nodes.
    """
    if not flow.context and not any(node.when for node in flow.nodes.values()):
        # Without declared values and conditions, nothing uses these names.
        return {}
    kinds = dict.fromkeys(catalog.id_names, Kind.TEXT)
    problems = []
    for name, kind in flow.context.items():
        if name in flow.nodes:
            message = f"'{name}' is also the name of a node"
            problems.append(Problem(message, path=f"context.{name}"))
        if name in kinds and kind != "text":
            message = f"'{name}' is an id, so it must be text: use number({name}) in conditions"
            problems.append(Problem(message, path=f"context.{name}"))
        kinds[name] = Kind.NUMBER if kind == "number" else Kind.TEXT
    if problems:
        raise CatalogError(problems)
    return kinds | dict.fromkeys(flow.nodes, Kind.ITEMS)


def _conditions_of(flow: FlowObject, kinds: Mapping[str, Kind]) -> dict[str, Expression]:
    """Return the compiled condition of each node that has one.

    Raise `CatalogError` if a condition is invalid, or uses a name in a way that its kind does not
    allow.
    """
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
    """Return the names of the nodes that each node waits for.

    A node waits for the nodes that it consumes, and for those that its condition uses.
    """
    waits = {}
    for name in flow.graph:
        condition_nodes = (
            sorted(conditions[name].names & flow.nodes.keys()) if name in conditions else []
        )
        waits[name] = list(dict.fromkeys([*inputs[name], *condition_nodes]))
    return waits


def _order(waits: Mapping[str, list[str]]) -> list[str]:
    """Return the names of all nodes, each after the nodes that it waits for.

    Raise `CatalogError` if the waits form a cycle.
    """
    try:
        return list(TopologicalSorter(waits).static_order())
    except CycleError as error:
        cycle = " -> ".join(error.args[1])
        raise CatalogError([Problem(f"the graph has a cycle: {cycle}", path="graph")]) from None


def _build_nodes(
    flow: FlowObject, catalog: Catalog, order: list[str], inputs: Mapping[str, list[str]]
) -> dict[str, Node]:
    """Return the nodes by name.

    Raise `CatalogError` with the problems of all nodes. If a node consumes an invalid node, only
    its `op` is checked.
    """
    problems: list[Problem] = []
    nodes: dict[str, Node] = {}
    for name in order:
        config = flow.nodes[name]
        if config.op not in OPS:
            hint = did_you_mean(config.op, OPS)
            problems.append(Problem(f"unknown op '{config.op}': {hint}", path=f"nodes.{name}.op"))
            continue
        if any(source not in nodes for source in inputs[name]):
            continue
        shapes: dict[str, Shape] = {source: nodes[source].gives for source in inputs[name]}
        try:
            nodes[name] = OPS[config.op](config.parameters, Site(name, catalog, shapes))
        except CatalogError as error:
            problems += [
                Problem(
                    problem.message,
                    path=f"nodes.{name}" + (f".{problem.path}" if problem.path else ""),
                )
                for problem in error.problems
            ]
    if problems:
        raise CatalogError(problems)
    return nodes
