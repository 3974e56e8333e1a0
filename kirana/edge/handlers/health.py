"""`/healthz`: whether the parts that requests need do answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

from kirana.catalog.revisions import LiveRevision, Revisions
from kirana.catalog.snapshot import Catalog
from kirana.codecs import Status
from kirana.edge.errors import HttpError
from kirana.edge.http import HttpRequest, json_bytes
from kirana.edge.parts import Parts
from kirana.errors import KiranaError, Unavailable
from kirana.features import FeatureQuery
from kirana.interactions import InteractionQuery

_PROBE = "healthz"
PROBE_TIMEOUT_S = 1.0


class HealthHandlers:
    def __init__(self, parts: Parts, live: LiveRevision, catalogs: Revisions[Catalog]) -> None:
        self._parts = parts
        self._live = live
        self._catalogs = catalogs

    async def get(self, request: HttpRequest) -> bytes:
        states = {
            "features": {
                **await _state(self._probe_features(request.revision)),
                **await self._told(),
            },
            "interactions": await _state(self._probe_interactions(request.revision)),
            "flows": await _state(self._parts.flows.prepare(request.revision)),
            "inferflow": await _state(self._parts.inferer.prepare(request.revision)),
            "catalog": {
                "state": "ok",
                "revision": request.revision,
                "refused_revisions": self._live.refused,
            },
        }
        healthy = all(each["state"] == "ok" for each in states.values())
        body = json_bytes({"status": "ok" if healthy else "unavailable", "parts": states})
        if not healthy:
            raise Unhealthy(body)
        return body

    async def _told(self) -> dict[str, object]:
        try:
            async with asyncio.timeout(PROBE_TIMEOUT_S):
                return await self._parts.features.health()
        except (TimeoutError, KiranaError):
            return {}

    async def _probe_features(self, revision: int) -> None:
        catalog = await self._catalogs.at(revision)
        for group in list(catalog.groups.values())[:1]:
            feature = f"{group.short_name}.{group.current.features[0].name}"
            query = FeatureQuery(group.entity.name, [_PROBE], columns=(feature,))
            (rows,) = await self._parts.features.read([query], revision)
            if rows.status[group.short_name][0] == Status.UNAVAILABLE:
                raise Unavailable("the feature store does not answer")

    async def _probe_interactions(self, revision: int) -> None:
        catalog = await self._catalogs.at(revision)
        for event in list(catalog.event_types)[:1]:
            await self._parts.interactions.query([InteractionQuery(_PROBE, event, 1)], revision)


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
