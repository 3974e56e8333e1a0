"""The feature store as a deployment of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ray import serve

from deployments.logs import start_log
from deployments.options import OPTIONS
from kirana.assembly import build_features, open_catalog
from kirana.features import EntityRows, FeatureQuery
from kirana.features.source import FeatureWrite
from kirana.schema import Array
from kirana.settings import Settings


@serve.deployment(name="FeatureStore", **OPTIONS)
class FeatureStore:
    def __init__(self, settings: dict[str, Any]) -> None:
        start_log()
        parsed = Settings.model_validate(settings)
        self._service = build_features(parsed, open_catalog(parsed))

    async def prepare(self, revision: int) -> None:
        await self._service.prepare(revision)

    async def read(self, queries: Sequence[FeatureQuery], revision: int) -> list[EntityRows]:
        return await self._service.read(queries, revision)

    async def write(self, write: FeatureWrite, revision: int) -> int:
        return await self._service.write(write, revision)

    async def delete(
        self, group: str, keys: Sequence[str], event_time_ms: Array, revision: int
    ) -> int:
        return await self._service.delete(group, keys, event_time_ms, revision)

    async def __del__(self) -> None:
        await self._service.close()
