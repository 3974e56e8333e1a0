"""The interaction store as a deployment of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ray import serve
from ray.serve.handle import DeploymentHandle

from deployments.options import OPTIONS
from deployments.replica import Replica
from kirana.interactions import Event, InteractionQuery, Interactions
from kirana.interactions.source import Appended
from kirana.revision import Revision


@serve.deployment(name="InteractionStore", **OPTIONS)
class InteractionStore:
    def __init__(
        self, settings: Mapping[str, Any], handles: Mapping[str, DeploymentHandle]
    ) -> None:
        self._replica = Replica("interactions", settings, handles)
        self._interactions = self._replica.assembly.interactions

    async def prepare(self, revision: Revision) -> None:
        await self._interactions.prepare(revision)

    async def append(self, events: Sequence[Event], revision: Revision) -> Appended:
        self._replica.count("append")
        return await self._interactions.append(events, revision)

    async def query(
        self, queries: Sequence[InteractionQuery], revision: Revision
    ) -> list[Interactions]:
        self._replica.count("query")
        return await self._interactions.query(queries, revision)

    async def forget(self, user_id: str, revision: Revision) -> int:
        self._replica.count("forget")
        return await self._interactions.forget(user_id, revision)

    async def __del__(self) -> None:
        await self._replica.close()
