"""Binds the deployments into the serving graph. `build` is what `serve deploy` imports."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from ray.serve import Application
from ray.serve.exceptions import RayServeException

from kirana.deployments.front_door import check_front_door
from kirana.deployments.ingress import Ingress
from kirana.deployments.parts import FeatureStore, Flows, Inferflow, InteractionStore, ModelReplica
from kirana.deployments.replica import alive_nodes
from kirana.errors import ConfigurationError, KiranaError, did_you_mean
from kirana.serving.environment import require_serve_environment
from kirana.serving.preflight import check_placement, check_revision, check_space, check_stores
from kirana.serving.settings import Settings, read_settings

DEPLOYMENTS: dict[str, Any] = {
    "features": FeatureStore,
    "interactions": InteractionStore,
    "models": ModelReplica,
    "inferflow": Inferflow,
    "flows": Flows,
    "ingress": Ingress,
}
"""By the name of the part; each calls only what stands before it."""

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
    names = {deployment.name for deployment in DEPLOYMENTS.values()}
    for name in options:
        if name not in names:
            raise ConfigurationError(
                f"deployments: there is no '{name}': {did_you_mean(name, names)}",
                field="deployments",
            )
    plain = settings.model_dump()
    bound: dict[str, Application] = {}
    for part, deployment in DEPLOYMENTS.items():
        chosen = dict(options.get(deployment.name, {}))
        chosen.setdefault("max_ongoing_requests", settings.max_ongoing)
        if part == "ingress" and settings.replicas is not None:
            chosen.pop("autoscaling_config", None)
            chosen["num_replicas"] = settings.replicas
        if part == "ingress" or part in settings.spread:
            bound[part] = _with_options(deployment, chosen).bind(plain, dict(bound))
    return bound["ingress"]


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
    for part, deployment in DEPLOYMENTS.items():
        chosen = options.get(deployment.name, {})
        scaling = chosen.get("autoscaling_config") or {}
        number = scaling.get("max_replicas") or chosen.get("num_replicas")
        if isinstance(number, int):
            found[part] = number
    if settings.replicas is not None:
        found["ingress"] = settings.replicas
    return found
