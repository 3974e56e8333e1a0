"""What a kind of node is: parameters that are checked when a flow is published, and `run`."""

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
    """What nodes call; local objects or handles of other deployments."""

    features: FeatureSource
    interactions: InteractionSource
    inferflow: InferflowRunner


@dataclass(frozen=True, slots=True)
class Call:
    """One request, as a node sees it; `context` are the ids and values that the flow was given."""

    context: Mapping[str, Any]
    services: Services
    request: RequestContext

    def within(self, seconds: float) -> Call:
        """Return this call with a deadline in so many seconds, unless its own is sooner."""
        return Call(self.context, self.services, self.request.within(seconds))

    def id_of(self, name: str) -> str:
        """Return one id of the context as text. Raises `InvalidInput` if it isn't there."""
        value = self.context.get(name)
        if type(value) not in (str, int) or value == "":
            reason = "is missing" if value is None else "must be a string or an integer"
            raise InvalidInput(f"'{name}' {reason}", field=f"context.{name}")
        return str(value)


@dataclass(frozen=True, slots=True)
class Site:
    """Where a node stands: what it may refer to, and the shapes of what it consumes."""

    node: str
    catalog: Catalog
    inputs: Mapping[str, Shape]

    def refuse(self, message: str, path: str = "") -> CatalogError:
        return CatalogError([Problem(message, path=path)])

    def parameters(self, model: type[P], given: Mapping[str, Any]) -> P:
        """Check `with:`. Raises `CatalogError` whose paths begin at `with`."""
        return check_parameters(model, given)

    def only(self, type_: type[Value]) -> str:
        """Return the one consumed node that gives a `type_`."""
        found = [name for name, shape in self.inputs.items() if shape.type is type_]
        if len(found) != 1:
            raise self.refuse(
                f"it must consume one node that gives {type_.__name__.lower()}, "
                f"it consumes {found or 'none'}"
            )
        return found[0]

    def allow(self, *types: type[Value]) -> None:
        """Refuse to consume anything else."""
        for name, shape in self.inputs.items():
            if shape.type not in types:
                raise self.refuse(f"it can't consume the {shape.type.__name__.lower()} of '{name}'")

    def known(self, kind: str, name: str, names: Mapping[str, Any], path: str) -> None:
        if name not in names:
            raise self.refuse(f"unknown {kind} '{name}': {did_you_mean(name, names)}", path)


class Node(Protocol):
    """`gives` is known once the node is built; `run` gets what it consumes by node name."""

    gives: Shape

    async def run(self, inputs: Mapping[str, Value], call: Call) -> Value: ...


class NodeKind(Protocol):
    """How an `op` becomes a node. Raises `CatalogError` with paths below the node."""

    def __call__(self, parameters: Mapping[str, Any], site: Site) -> Node: ...
