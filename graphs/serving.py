"""Binds the deployments into the serving graph. `build` is what `serve deploy` imports."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from ray.serve import Application
from ray.serve.exceptions import RayServeException

from kirana.deployments.actors import actor_config
from kirana.deployments.front_door import check_front_door
from kirana.deployments.ingress import Ingress
from kirana.deployments.parts import deployment_of
from kirana.deployments.replica import alive_nodes
from kirana.errors import ConfigurationError, KiranaError, did_you_mean
from kirana.serving.environment import require_serve_environment
from kirana.serving.parts import INGRESS, PARTS
from kirana.serving.placement import parts_within
from kirana.serving.preflight import check_placement, check_revision, check_space, check_stores
from kirana.serving.settings import Settings, read_settings

Options = Mapping[str, Mapping[str, Any]]


class Refused(RayServeException):
    """Of this kind Serve shows the message alone, without a traceback."""


def build(arguments: dict[str, Any]) -> Application:
    """Return the application for `Settings` given as a dictionary.

    Raises `Refused` for whatever would make replicas fail: a cluster that was started without
    the variables that Kirana needs, settings that don't fit, a store that can't be opened.
    """
    try:
        require_serve_environment()
        check_front_door()
        settings = read_settings(arguments)
        check_placement(settings, nodes=alive_nodes())
        check_space(settings)
        check_revision(settings)
        asyncio.run(check_stores(settings))
    except KiranaError as error:
        raise Refused(error.message) from None
    return graph(settings)


def graph(settings: Settings, options: Options | None = None) -> Application:
    """Bind what `settings` spreads; `options` are Serve's, by the name of a deployment.

    Raises `ConfigurationError` for the options of a deployment that there isn't.
    """
    options = options or {}
    deployments = _deployments()
    names = {deployment.name for deployment in deployments.values()}
    for name in options:
        if name not in names:
            raise ConfigurationError(
                f"deployments: there is no '{name}': {did_you_mean(name, names)}",
                field="deployments",
            )
    plain = settings.model_dump()
    declared = {part.name: part for part in PARTS}
    bound: dict[str, Application] = {}
    for owner, deployment in deployments.items():
        if owner != INGRESS and owner not in settings.spread:
            continue
        chosen = dict(options.get(deployment.name, {}))
        chosen.setdefault("max_ongoing_requests", settings.max_ongoing)
        within = parts_within(owner, settings.spread)
        actors = [
            actor_config(actor, plain)
            for part in PARTS
            if part.name in within
            for actor in part.actors
        ]
        if actors:
            chosen["deployment_actors"] = actors
        if owner == INGRESS and settings.replicas is not None:
            chosen.pop("autoscaling_config", None)
            chosen["num_replicas"] = settings.replicas
        own = () if owner == INGRESS else (declared[owner],)
        bound[owner] = _with_options(deployment, chosen).bind(*own, plain, dict(bound))
    return bound[INGRESS]


def _deployments() -> dict[str, Any]:
    """Return what can be deployed, by the name of the part; each calls only those before it."""
    found = {part.name: deployment_of(part) for part in PARTS if part.deployment is not None}
    return {**found, INGRESS: Ingress}


def _with_options(deployment: Any, options: Mapping[str, Any]) -> Any:
    try:
        return deployment.options(**options)
    except (TypeError, ValueError, ImportError, AttributeError) as error:
        said = str(error).strip().splitlines()
        raise ConfigurationError(
            f"deployments: {deployment.name}: {' '.join(said) or type(error).__name__}",
            field="deployments",
        ) from None


def max_replicas(settings: Settings, options: Options) -> dict[str, int]:
    """Return how many replicas each part may come to have, where that is said."""
    found = {}
    for part, deployment in _deployments().items():
        chosen = options.get(deployment.name, {})
        scaling = chosen.get("autoscaling_config") or {}
        number = scaling.get("max_replicas") or chosen.get("num_replicas")
        if isinstance(number, int):
            found[part] = number
    if settings.replicas is not None:
        found[INGRESS] = settings.replicas
    return found
