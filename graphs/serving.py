"""The serving graph, which binds the deployments together. `serve deploy` imports `build`."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from ray.serve import Application
from ray.serve.exceptions import RayServeException

from kirana.actors.table import ACTORS
from kirana.deployments.actors import actor_config
from kirana.deployments.front_door import check_front_door
from kirana.deployments.ingress import Ingress
from kirana.deployments.parts import deployment_of
from kirana.deployments.replica import alive_nodes
from kirana.edge.limits import HARD_LIMIT
from kirana.errors import ConfigurationError, KiranaError, did_you_mean
from kirana.serving.environment import require_serve_environment
from kirana.serving.parts import INGRESS, PARTS
from kirana.serving.placement import parts_within
from kirana.serving.preflight import check_placement, check_revision, check_space, check_stores
from kirana.serving.settings import Settings, read_settings

Options = Mapping[str, Mapping[str, Any]]


class Refused(RayServeException):
    """An error of `build`. Serve shows only its message, without a traceback."""


def build(arguments: dict[str, Any]) -> Application:
    """Return the application for `arguments`, the `args` in the file of `serve deploy`.

    Raise `Refused` if one of the checks before a start fails. Its message is that of the check.
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
    """Return the application: the ingress, bound to the deployments of all spread parts.

    `options` are Serve's options for each deployment, by its name.

    Raise `ConfigurationError` if `options` name an unknown deployment, or if Serve refuses them.
    """
    options = options or {}
    deployments = _deployments()
    names = {deployment.name for deployment in deployments.values()}
    for name in options:
        if name not in names:
            raise ConfigurationError(
                f"deployments: unknown deployment '{name}': {did_you_mean(name, names)}",
                field="deployments",
            )
    arguments = settings.model_dump()
    declared = {part.name: part for part in PARTS}
    bound: dict[str, Application] = {}
    for owner, deployment in deployments.items():
        if owner != INGRESS and owner not in settings.spread:
            continue
        own_options = dict(options.get(deployment.name, {}))
        own_options.setdefault("max_ongoing_requests", HARD_LIMIT * settings.max_ongoing)
        within = parts_within(owner, settings.spread)
        actors = [
            actor_config(kind, name, arguments)
            for kind in ACTORS
            if kind.part.name in within
            for name in kind.names(settings)
        ]
        if actors:
            own_options["deployment_actors"] = actors
        if owner == INGRESS and settings.replicas is not None:
            own_options.pop("autoscaling_config", None)
            own_options["num_replicas"] = settings.replicas
        # The deployment of a part takes the part as its first argument. The ingress does not.
        part_argument = () if owner == INGRESS else (declared[owner],)
        bound[owner] = _with_options(deployment, own_options).bind(
            *part_argument, arguments, dict(bound)
        )
    return bound[INGRESS]


def _deployments() -> dict[str, Any]:
    """Return all deployments by owner. Each one calls only deployments that come before it."""
    of_parts = {part.name: deployment_of(part) for part in PARTS if part.deployment is not None}
    return {**of_parts, INGRESS: Ingress}


def _with_options(deployment: Any, options: Mapping[str, Any]) -> Any:
    try:
        return deployment.options(**options)
    except (TypeError, ValueError, ImportError, AttributeError) as error:
        lines = str(error).strip().splitlines()
        raise ConfigurationError(
            f"deployments: {deployment.name}: {' '.join(lines) or type(error).__name__}",
            field="deployments",
        ) from None


def max_replicas(settings: Settings, options: Options) -> dict[str, int]:
    """Return the maximum number of replicas by owner (`INGRESS` or a part).

    An owner is left out if neither `options` nor `settings` has a number for it.
    """
    maxima = {}
    for owner, deployment in _deployments().items():
        own_options = options.get(deployment.name, {})
        scaling = own_options.get("autoscaling_config") or {}
        number = scaling.get("max_replicas") or own_options.get("num_replicas")
        if isinstance(number, int):
            maxima[owner] = number
    if settings.replicas is not None:
        maxima[INGRESS] = settings.replicas
    return maxima
