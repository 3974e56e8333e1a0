"""Inferflow as a deployment of its own, over handles of the feature store and the models."""

from __future__ import annotations

from typing import Any

from ray import serve
from ray.serve.handle import DeploymentHandle

from deployments.handles import RemoteFeatures, RemoteModels
from deployments.logs import start_log
from deployments.options import OPTIONS
from kirana.assembly import build_inferflow, open_catalog
from kirana.inferflow import InferRequest, InferResult
from kirana.settings import Settings


@serve.deployment(name="Inferflow", **OPTIONS)
class Inferflow:
    def __init__(
        self, settings: dict[str, Any], features: DeploymentHandle, models: DeploymentHandle
    ) -> None:
        start_log()
        source = open_catalog(Settings.model_validate(settings))
        self._service = build_inferflow(RemoteFeatures(features), RemoteModels(models), source)

    async def prepare(self, revision: int) -> None:
        await self._service.prepare(revision)

    async def infer(self, request: InferRequest, revision: int) -> InferResult:
        return await self._service.infer(request, revision)
