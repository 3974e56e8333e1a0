"""Actors that a deployment owns: Serve starts them before its replicas, and anew when they die."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ray.serve.config import DeploymentActorConfig

from kirana.part import Actor


def actor_config(actor: Actor, settings: Mapping[str, Any]) -> DeploymentActorConfig:
    """Return what Serve starts; the class of the actor is called with `settings`."""
    return DeploymentActorConfig(
        name=actor.name,
        actor_class=actor.path,
        init_args=(settings,),
        actor_options=dict(actor.options),
    )
