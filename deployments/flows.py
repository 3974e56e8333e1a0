"""The flow executor as a deployment of its own, over handles of what its nodes call."""

from __future__ import annotations

from typing import Any

from ray import serve
from ray.serve.handle import DeploymentHandle

from deployments.handles import RemoteFeatures, RemoteInferer, RemoteInteractions
from deployments.logs import start_log
from deployments.options import OPTIONS
from kirana.assembly import build_flows, open_catalog
from kirana.flow import FlowRequest, FlowResult
from kirana.settings import Settings


@serve.deployment(name="Flows", **OPTIONS)
class Flows:
    def __init__(
        self,
        settings: dict[str, Any],
        features: DeploymentHandle,
        interactions: DeploymentHandle,
        inferflow: DeploymentHandle,
    ) -> None:
        start_log()
        self._service = build_flows(
            RemoteFeatures(features),
            RemoteInteractions(interactions),
            RemoteInferer(inferflow),
            open_catalog(Settings.model_validate(settings)),
        )

    async def prepare(self, revision: int) -> None:
        await self._service.prepare(revision)

    async def run(self, request: FlowRequest, revision: int) -> FlowResult:
        return await self._service.run(request, revision)
