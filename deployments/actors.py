"""Actors of deployments. Serve starts them before the replicas, and restarts them if they die."""

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
    """The Ray actor around the object that an `Actor` builds.

    `kirana.deployments.handles.RemoteActor` calls it. `actor_config` makes a subclass for each
    actor, with the attributes `actor` and `settings`.
    """

    actor: ClassVar[Actor]
    settings: ClassVar[Mapping[str, Any]]

    def __init__(self) -> None:
        start_log()
        settings = Settings.model_validate(self.settings)
        self._object = self.actor.build(Assembly(settings, open_catalog(settings)))

    async def call(
        self,
        method: str,
        arguments: tuple[object, ...],
        context: RequestContext,
        pass_context: bool,
    ) -> Outcome:
        """Call a method of the object, until the deadline of `context`.

        If `pass_context`, the context is also the last argument of the method. A `KiranaError`
        is returned in the outcome. Raise any other error.
        """
        bound = getattr(self._object, method)
        all_arguments = (*arguments, context) if pass_context else arguments
        return await outcome_of(self.actor.name, lambda: bound(*all_arguments), context)


def actor_config(actor: Actor, settings: Mapping[str, Any]) -> DeploymentActorConfig:
    """Return the configuration with which Serve starts an actor.

    The settings are attributes of the class. They are not constructor arguments, because Serve's
    status API shows constructor arguments, and a URL may contain a password.
    """
    host = type("ActorHost", (ActorHost,), {"actor": actor, "settings": settings})
    return DeploymentActorConfig(
        name=actor.name, actor_class=ray.remote(host), actor_options=dict(actor.options)
    )
