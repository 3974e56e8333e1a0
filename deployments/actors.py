"""Actors that a deployment owns: Serve starts them before its replicas, and anew when they die."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import ray
from ray.serve.config import DeploymentActorConfig

from kirana.deployments.logs import start_log
from kirana.hop import Outcome, outcome_of
from kirana.part import Actor
from kirana.request import RequestContext
from kirana.serving.assembly import Assembly, open_catalog
from kirana.serving.settings import Settings


class ActorHost:
    """Runs what an `Actor` builds, and serves it to `kirana.deployments.handles.RemoteActor`."""

    actor: ClassVar[Actor]
    settings: ClassVar[Mapping[str, Any]]

    def __init__(self) -> None:
        start_log()
        settings = Settings.model_validate(self.settings)
        self._object = self.actor.build(Assembly(settings, open_catalog(settings)))

    async def call(
        self, method: str, arguments: tuple[object, ...], context: RequestContext, passed: bool
    ) -> Outcome:
        """Call a method; `passed` says that it takes the context."""
        bound = getattr(self._object, method)
        whole = (*arguments, context) if passed else arguments
        return await outcome_of(self.actor.name, lambda: bound(*whole), context)


def actor_config(actor: Actor, settings: Mapping[str, Any]) -> DeploymentActorConfig:
    """Return what Serve starts.

    The settings are in the class: Serve shows the arguments of a constructor to whoever asks it,
    and a URL may have a password.
    """
    host = type("ActorHost", (ActorHost,), {"actor": actor, "settings": settings})
    return DeploymentActorConfig(
        name=actor.name, actor_class=ray.remote(host), actor_options=dict(actor.options)
    )
