"""The interface of nodes, and checks that several kinds of node share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from kirana.catalog.snapshot import Catalog
from kirana.errors import CatalogError, InvalidInput, Problem, did_you_mean
from kirana.features import FeatureSource
from kirana.flow.parameters import P, check_parameters
from kirana.flow.values import Shape, Value
from kirana.inferflow import InferflowRunner
from kirana.interactions import InteractionSource
from kirana.request import RequestContext


@dataclass(frozen=True, slots=True)
class Services:
    """The parts that nodes call: objects of this process, or remotes of other deployments."""

    features: FeatureSource
    interactions: InteractionSource
    inferflow: InferflowRunner


@dataclass(frozen=True, slots=True)
class Call:
    """One run of a flow, as its nodes see it. `context` has the ids and values of the request."""

    context: Mapping[str, Any]
    services: Services
    request: RequestContext

    def within(self, seconds: float) -> Call:
        """Return this call with a deadline in `seconds`, unless its own deadline is sooner."""
        return Call(self.context, self.services, self.request.within(seconds))

    def id_of(self, name: str) -> str:
        """Return an id of the context as text.

        Raise `InvalidInput` if it is missing, empty, or neither a string nor an integer.
        """
        value = self.context.get(name)
        if type(value) in (str, int) and value != "":
            return str(value)
        if value is None:
            reason = "is missing in the context"
        elif value == "":
            reason = "must not be empty"
        else:
            reason = "must be a string or an integer"
        raise InvalidInput(f"'{name}' {reason}", field=f"context.{name}")


@dataclass(frozen=True, slots=True)
class Site:
    """The place of a node in a flow: its name, the catalog, and the shapes of its inputs."""

    node: str
    catalog: Catalog
    inputs: Mapping[str, Shape]

    def error(self, message: str, path: str = "") -> CatalogError:
        """Return an error about this node. `path` leads from the node to the wrong value."""
        return CatalogError([Problem(message, path=path)])

    def parameters(self, model: type[P], parameters: Mapping[str, Any]) -> P:
        """Return the parameters as `model`.

        Raise `CatalogError` with paths that begin with `with` if they are invalid.
        """
        return check_parameters(model, parameters)

    def only_input(self, type_: type[Value]) -> str:
        """Return the name of the consumed node whose value is a `type_`.

        Raise `CatalogError` unless there is exactly one.
        """
        names = [name for name, shape in self.inputs.items() if shape.type is type_]
        if len(names) != 1:
            raise self.error(
                f"must consume one node that gives {type_.__name__.lower()}, not {len(names)}"
            )
        return names[0]

    def allow_inputs(self, *types: type[Value]) -> None:
        """Raise `CatalogError` if the node consumes a value of a type that is not in `types`."""
        for name, shape in self.inputs.items():
            if shape.type not in types:
                raise self.error(f"can't consume the {shape.type.__name__.lower()} of '{name}'")

    def check_name(self, kind: str, name: str, names: Mapping[str, Any], path: str) -> None:
        """Raise `CatalogError` at `path` unless `name` is in `names`.

        `kind` says in the message what the name stands for.
        """
        if name not in names:
            raise self.error(f"unknown {kind} '{name}': {did_you_mean(name, names)}", path)


class Node(Protocol):
    """A step of a flow. `gives` is the shape of its value, which is known before it runs."""

    gives: Shape

    async def run(self, inputs: Mapping[str, Value], call: Call) -> Value:
        """Return the value of the node. `inputs` has the consumed values, by the names of nodes."""


class NodeKind(Protocol):
    """A callable that makes a node, usually the class of the node."""

    def __call__(self, parameters: Mapping[str, Any], site: Site) -> Node:
        """Return a node with these parameters.

        Raise `CatalogError` with paths in the node if its parameters or its inputs are invalid.
        """
