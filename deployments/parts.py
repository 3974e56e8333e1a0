"""Each part as a deployment of its own: any method of its protocol, called by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from ray import serve
from ray.serve.handle import DeploymentHandle

from kirana.deployments.options import OPTIONS
from kirana.deployments.replica import Replica
from kirana.hop import Outcome, outcome_of
from kirana.request import RequestContext
from kirana.revision import Revision


class PartDeployment:
    """Serve one part, `part` in `kirana.serving.placement.PARTS`, to `deployments.handles`."""

    part: ClassVar[str]

    def __init__(
        self, settings: Mapping[str, Any], handles: Mapping[str, DeploymentHandle]
    ) -> None:
        self._replica = Replica(self.part, settings, handles)
        self._object = getattr(self._replica.assembly, self.part)

    async def call(
        self, method: str, arguments: tuple[object, ...], context: RequestContext
    ) -> Outcome:
        self._replica.count(method)
        bound = getattr(self._object, method)
        return await outcome_of(self.part, lambda: bound(*arguments, context), context)

    async def prepare(self, revision: Revision) -> None:
        await self._object.prepare(revision)

    async def health(self) -> dict[str, Any]:
        found: dict[str, Any] = await self._object.health()
        return found

    async def __del__(self) -> None:
        await self._replica.close()


@serve.deployment(name="FeatureStore", **OPTIONS)
class FeatureStore(PartDeployment):
    part = "features"


@serve.deployment(name="InteractionStore", **OPTIONS)
class InteractionStore(PartDeployment):
    part = "interactions"


@serve.deployment(name="ModelReplica", **OPTIONS)
class ModelReplica(PartDeployment):
    part = "models"


@serve.deployment(name="Inferflow", **OPTIONS)
class Inferflow(PartDeployment):
    part = "inferflow"


@serve.deployment(name="Flows", **OPTIONS)
class Flows(PartDeployment):
    part = "flows"
