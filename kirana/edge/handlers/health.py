"""`/healthz`: whether the parts that requests need do answer."""

from __future__ import annotations

import asyncio

import msgspec
from msgspec import UNSET

from kirana.catalog.revisions import LiveRevision
from kirana.edge.exchange import Request, Response, json_response
from kirana.edge.replies import HealthReply, PartReport
from kirana.edge.resources import Resources
from kirana.errors import KiranaError
from kirana.revision import Revision
from kirana.service import Health, Service

PROBE_TIMEOUT_S = 1.0


async def health(request: Request, resources: Resources) -> Response:
    revision = request.context.revision
    names = [name for name, _ in resources.parts]
    found = await asyncio.gather(*(_health(part, revision) for _, part in resources.parts))
    parts = {name: _report(health) for name, health in zip(names, found, strict=True)}
    parts["catalog"] = _catalog(resources.live, revision)
    if all(each.state == "ok" for each in parts.values()):
        return json_response(HealthReply("ok", parts))
    return json_response(HealthReply("unavailable", parts), status=503)


def _catalog(live: LiveRevision, revision: Revision) -> PartReport:
    """The catalog may be away: what was read of it serves on."""
    return PartReport(
        "ok",
        revision=revision.number,
        catalog=revision.catalog,
        refused_revisions=live.refused,
        away_since=UNSET if live.away_since is None else int(live.away_since * 1000),
    )


async def _health(part: Service, revision: Revision) -> Health:
    try:
        async with asyncio.timeout(PROBE_TIMEOUT_S):
            return await part.health(revision)
    except TimeoutError:
        return Health(f"no answer in {PROBE_TIMEOUT_S:.0f} s")
    except KiranaError as error:
        return Health(error.message)


def _report(health: Health) -> PartReport:
    told = msgspec.convert({"state": "ok", **health.told}, PartReport)
    if health.reason is not None:
        told.state, told.reason = "unavailable", health.reason
    return told
