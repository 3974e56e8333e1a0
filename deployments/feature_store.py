"""The feature store as a deployment of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ray import serve
from ray.serve.handle import DeploymentHandle

from deployments.options import OPTIONS
from deployments.replica import Replica
from kirana.features import EntityRows, FeatureQuery
from kirana.features.source import FeatureWrite, WriteResult
from kirana.revision import Revision
from kirana.schema import Array


@serve.deployment(name="FeatureStore", **OPTIONS)
class FeatureStore:
    def __init__(
        self, settings: Mapping[str, Any], handles: Mapping[str, DeploymentHandle]
    ) -> None:
        self._replica = Replica("features", settings, handles)
        self._features = self._replica.assembly.features

    async def prepare(self, revision: Revision) -> None:
        await self._features.prepare(revision)

    async def read(self, queries: Sequence[FeatureQuery], revision: Revision) -> list[EntityRows]:
        self._replica.count("read")
        return await self._features.read(queries, revision)

    async def write(self, write: FeatureWrite, revision: Revision) -> WriteResult:
        self._replica.count("write")
        return await self._features.write(write, revision)

    async def delete(
        self, group: str, keys: Sequence[str], event_time_ms: Array, revision: Revision
    ) -> int:
        self._replica.count("delete")
        return await self._features.delete(group, keys, event_time_ms, revision)

    async def health(self) -> dict[str, Any]:
        return await self._features.health()

    async def __del__(self) -> None:
        await self._replica.close()
