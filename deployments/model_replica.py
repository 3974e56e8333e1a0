"""ONNX models as a deployment of their own."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from ray import serve

from deployments.logs import start_log
from deployments.options import OPTIONS
from kirana.assembly import build_models, open_catalog
from kirana.settings import Settings


@serve.deployment(name="ModelReplica", **OPTIONS)
class ModelReplica:
    def __init__(self, settings: dict[str, Any]) -> None:
        start_log()
        parsed = Settings.model_validate(settings)
        self._registry = build_models(parsed, open_catalog(parsed))

    async def prepare(self, revision: int) -> None:
        await self._registry.prepare(revision)

    async def run(
        self, model: str, matrix: npt.NDArray[np.float32], output: str, revision: int
    ) -> npt.NDArray[np.float32]:
        return await self._registry.run(model, matrix, output, revision)
