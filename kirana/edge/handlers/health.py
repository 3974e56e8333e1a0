"""`/healthz`: whether the parts that requests need do answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

from kirana.catalog.revisions import LiveRevision, Revisions
from kirana.catalog.snapshot import Catalog
from kirana.edge.errors import HttpError
from kirana.edge.http import HttpRequest, json_bytes
from kirana.edge.parts import Parts
from kirana.errors import KiranaError
from kirana.interactions import InteractionQuery
from kirana.request import RequestContext
from kirana.revision import Revision

_PROBE = "healthz"
PROBE_TIMEOUT_S = 1.0


class HealthHandlers:
    def __init__(self, parts: Parts, live: LiveRevision, catalogs: Revisions[Catalog]) -> None:
        self._parts = parts
        self._live = live
        self._catalogs = catalogs

    async def get(self, request: HttpRequest) -> bytes:
        states = {
            "features": await self._features(request.context.revision),
            "interactions": await _state(self._probe_interactions(request.context)),
            "flows": await _state(self._parts.flows.prepare(request.context.revision)),
            "inferflow": await _state(self._parts.inferflow.prepare(request.context.revision)),
            "catalog": self._catalog(request.context.revision),
        }
        healthy = all(each["state"] == "ok" for each in states.values())
        body = json_bytes({"status": "ok" if healthy else "unavailable", "parts": states})
        if not healthy:
            raise Unhealthy(body)
        return body

    def _catalog(self, revision: Revision) -> dict[str, object]:
        """The catalog may be away: what was read of it serves on."""
        state: dict[str, object] = {
            "state": "ok",
            "revision": revision.number,
            "catalog": revision.catalog,
            "refused_revisions": self._live.refused,
        }
        if self._live.away_since is not None:
            state["away_since"] = int(self._live.away_since * 1000)
        return state

    async def _features(self, revision: Revision) -> dict[str, object]:
        """What the store and the cache tell of themselves, and whether the store answers."""
        told: dict[str, object] = {}
        try:
            async with asyncio.timeout(PROBE_TIMEOUT_S):
                told = await self._parts.features.health()
        except (TimeoutError, KiranaError):
            told = {"answers": False}
        if not told.pop("answers"):
            return {"state": "unavailable", "reason": "the feature store does not answer", **told}
        return {**await _state(self._parts.features.prepare(revision)), **told}

    async def _probe_interactions(self, context: RequestContext) -> None:
        catalog = await self._catalogs.at(context.revision)
        for event in list(catalog.event_types)[:1]:
            await self._parts.interactions.query([InteractionQuery(_PROBE, event, 1)], context)


class Unhealthy(HttpError):
    """A 503 whose body is the report, not an error."""

    def __init__(self, body: bytes) -> None:
        super().__init__(503, "unavailable", "a part that is needed does not answer")
        self.body = body


async def _state(probe: Awaitable[None]) -> dict[str, object]:
    try:
        async with asyncio.timeout(PROBE_TIMEOUT_S):
            await probe
    except TimeoutError:
        return {"state": "unavailable", "reason": f"no answer in {PROBE_TIMEOUT_S:.0f} s"}
    except KiranaError as error:
        return {"state": "unavailable", "reason": error.message}
    return {"state": "ok"}
