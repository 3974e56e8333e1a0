"""Binds the deployments into the serving graph. `build` is what `serve deploy` imports."""

from __future__ import annotations

from typing import Any

from ray.serve import Application

from deployments.feature_store import FeatureStore
from deployments.flows import Flows
from deployments.inferflow import Inferflow
from deployments.ingress import Ingress
from deployments.interaction_store import InteractionStore
from deployments.model_replica import ModelReplica
from kirana.serve_environment import require_serve_environment
from kirana.settings import read_settings


def build(arguments: dict[str, Any]) -> Application:
    """Return the application for `Settings` given as a dictionary.

    Raises `ConfigurationError` for settings that don't fit, and for a cluster that was started
    without the variables that Kirana needs.
    """
    require_serve_environment()
    settings = read_settings(arguments)
    plain = settings.model_dump()
    ingress = Ingress.options(num_replicas=settings.replicas)
    if settings.placement == "fused":
        return ingress.bind(plain)
    features = FeatureStore.bind(plain)
    interactions = InteractionStore.bind(plain)
    inferflow = Inferflow.bind(plain, features, ModelReplica.bind(plain))
    flows = Flows.bind(plain, features, interactions, inferflow)
    return ingress.bind(plain, features, interactions, inferflow, flows)
