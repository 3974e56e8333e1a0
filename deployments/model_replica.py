"""ONNX models as a deployment of their own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from ray import serve
from ray.serve.handle import DeploymentHandle

from deployments.options import OPTIONS
from deployments.replica import Replica
from kirana.revision import Revision


@serve.deployment(name="ModelReplica", **OPTIONS)
class ModelReplica:
    def __init__(
        self, settings: Mapping[str, Any], handles: Mapping[str, DeploymentHandle]
    ) -> None:
        self._replica = Replica("models", settings, handles)
        self._models = self._replica.assembly.models

    async def prepare(self, revision: Revision) -> None:
        await self._models.prepare(revision)

    async def run(
        self, model: str, matrix: npt.NDArray[np.float32], output: str, revision: Revision
    ) -> npt.NDArray[np.float32]:
        self._replica.count("run")
        return await self._models.run(model, matrix, output, revision)

    async def __del__(self) -> None:
        await self._replica.close()
