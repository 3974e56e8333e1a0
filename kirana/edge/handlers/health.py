"""`/healthz`: whether the parts that requests need do answer."""

from __future__ import annotations

import asyncio

from kirana.catalog.revisions import LiveRevision
from kirana.edge.errors import HttpError
from kirana.edge.http import HttpRequest, json_bytes
from kirana.errors import KiranaError
from kirana.part import Parts
from kirana.revision import Revision
from kirana.service import Health, Service

PROBE_TIMEOUT_S = 1.0


class HealthHandlers:
    def __init__(self, parts: Parts, live: LiveRevision) -> None:
        self._parts = parts
        self._live = live

    async def get(self, request: HttpRequest) -> bytes:
        revision = request.context.revision
        names = [name for name, _ in self._parts]
        found = await asyncio.gather(*(_health(part, revision) for _, part in self._parts))
        states = {name: _state(health) for name, health in zip(names, found, strict=True)}
        states["catalog"] = self._catalog(revision)
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


class Unhealthy(HttpError):
    """A 503 whose body is the report, not an error."""

    def __init__(self, body: bytes) -> None:
        super().__init__(503, "unavailable", "a part that is needed does not answer")
        self.body = body


async def _health(part: Service, revision: Revision) -> Health:
    try:
        async with asyncio.timeout(PROBE_TIMEOUT_S):
            return await part.health(revision)
    except TimeoutError:
        return Health(f"no answer in {PROBE_TIMEOUT_S:.0f} s")
    except KiranaError as error:
        return Health(error.message)


def _state(health: Health) -> dict[str, object]:
    if health.reason is None:
        return {"state": "ok", **health.told}
    return {"state": "unavailable", "reason": health.reason, **health.told}
