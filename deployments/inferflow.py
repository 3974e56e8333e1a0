"""Inferflow as a deployment of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ray import serve
from ray.serve.handle import DeploymentHandle

from deployments.options import OPTIONS
from deployments.replica import Replica
from kirana.inferflow import InferRequest, InferResult
from kirana.revision import Revision


@serve.deployment(name="Inferflow", **OPTIONS)
class Inferflow:
    def __init__(
        self, settings: Mapping[str, Any], handles: Mapping[str, DeploymentHandle]
    ) -> None:
        self._replica = Replica("inferflow", settings, handles)
        self._inferflow = self._replica.assembly.inferflow

    async def prepare(self, revision: Revision) -> None:
        await self._inferflow.prepare(revision)

    async def infer(self, request: InferRequest, revision: Revision) -> InferResult:
        self._replica.count("infer")
        return await self._inferflow.infer(request, revision)

    async def __del__(self) -> None:
        await self._replica.close()
