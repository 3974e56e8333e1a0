"""Actors of deployments. Serve starts them before the replicas, and restarts them if they die."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping
from typing import Any, ClassVar

import ray
from ray.serve.config import DeploymentActorConfig

from kirana.actors.actor import Actors, Running
from kirana.deployments.logs import start_log
from kirana.deployments.metrics import Publisher
from kirana.hop import Outcome, outcome_of
from kirana.metrics import Metrics
from kirana.request import RequestContext
from kirana.serving.assembly import Assembly, open_catalog
from kirana.serving.settings import Settings

logger = logging.getLogger("kirana.actors")


class ActorHost:
    """The Ray actor around the object that `Actors` build.

    `kirana.deployments.handles.RemoteActor` calls it. `actor_config` makes a subclass for each
    actor, with the attributes `kind`, `name` and `settings`.
    """

    kind: ClassVar[Actors]
    name: ClassVar[str]
    settings: ClassVar[Mapping[str, Any]]

    async def __init__(self) -> None:
        start_log()
        settings = Settings.model_validate(self.settings)
        metrics = Metrics()
        self._publisher = Publisher(metrics, self.name)
        assembly = Assembly(settings, open_catalog(settings), metrics=metrics)
        self._object = self.kind.build(assembly)
        if isinstance(self._object, Running):
            self._running = asyncio.create_task(self._object.run())
            self._running.add_done_callback(_end)

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
        return await outcome_of(self.name, lambda: bound(*all_arguments), context)


def _end(running: asyncio.Task[None]) -> None:
    """End this process, so that Serve starts the actor again."""
    if not running.cancelled():
        logger.error("an actor stopped, and starts again", exc_info=running.exception())
        logging.shutdown()
        os._exit(1)


def actor_config(kind: Actors, name: str, settings: Mapping[str, Any]) -> DeploymentActorConfig:
    """Return the configuration with which Serve starts an actor.

    The settings are attributes of the class. They are not constructor arguments, because Serve's
    status API shows constructor arguments, and a URL may contain a password.
    """
    attributes = {"kind": kind, "name": name, "settings": settings}
    host = type("ActorHost", (ActorHost,), attributes)
    return DeploymentActorConfig(
        name=name, actor_class=ray.remote(host), actor_options=dict(kind.options)
    )
