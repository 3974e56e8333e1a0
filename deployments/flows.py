"""The flow executor as a deployment of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ray import serve
from ray.serve.handle import DeploymentHandle

from deployments.options import OPTIONS
from deployments.replica import Replica
from kirana.flow import FlowRequest, FlowResult
from kirana.revision import Revision


@serve.deployment(name="Flows", **OPTIONS)
class Flows:
    def __init__(
        self, settings: Mapping[str, Any], handles: Mapping[str, DeploymentHandle]
    ) -> None:
        self._replica = Replica("flows", settings, handles)
        self._flows = self._replica.assembly.flows

    async def prepare(self, revision: Revision) -> None:
        await self._flows.prepare(revision)

    async def run(self, request: FlowRequest, revision: Revision) -> FlowResult:
        self._replica.count("run")
        return await self._flows.run(request, revision)

    async def __del__(self) -> None:
        await self._replica.close()
