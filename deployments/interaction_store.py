"""The interaction store as a deployment of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ray import serve

from deployments.logs import start_log
from deployments.options import OPTIONS
from kirana.assembly import build_interactions, open_catalog
from kirana.interactions import Event, InteractionQuery, Interactions
from kirana.settings import Settings


@serve.deployment(name="InteractionStore", **OPTIONS)
class InteractionStore:
    def __init__(self, settings: dict[str, Any]) -> None:
        start_log()
        parsed = Settings.model_validate(settings)
        self._service = build_interactions(parsed, open_catalog(parsed))

    async def prepare(self, revision: int) -> None:
        await self._service.prepare(revision)

    async def append(self, events: Sequence[Event], revision: int) -> int:
        return await self._service.append(events, revision)

    async def query(self, queries: Sequence[InteractionQuery], revision: int) -> list[Interactions]:
        return await self._service.query(queries, revision)

    async def forget(self, user_id: str, revision: int) -> int:
        return await self._service.forget(user_id, revision)

    async def __del__(self) -> None:
        await self._service.close()
