"""The handler of `/healthz`: the state of the catalog, and of the parts that routes call."""

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
"""Seconds after which a part that has not answered counts as unavailable."""


async def health(request: Request, resources: Resources) -> Response:
    """Return the state of the catalog and of each part, with a 503 if a part is unavailable."""
    revision = request.context.revision
    names = [name for name, _ in resources.parts]
    states = await asyncio.gather(*(_health(part, revision) for _, part in resources.parts))
    parts = {name: _report(state) for name, state in zip(names, states, strict=True)}
    parts["catalog"] = _catalog(resources.live, revision)
    if all(report.state == "ok" for report in parts.values()):
        return json_response(HealthReply("ok", parts))
    return json_response(HealthReply("unavailable", parts), status=503)


def _catalog(live: LiveRevision, revision: Revision) -> PartReport:
    """Return the report of the catalog: always "ok", because requests run on a loaded revision."""
    return PartReport(
        "ok",
        revision=revision.number,
        catalog=revision.catalog,
        refused_revisions=live.refused,
        away_since=UNSET if live.away_since is None else int(live.away_since * 1000),
    )


async def _health(part: Service, revision: Revision) -> Health:
    """Return the health of a part. An error of Kirana or a timeout becomes the reason."""
    try:
        async with asyncio.timeout(PROBE_TIMEOUT_S):
            return await part.health(revision)
    except TimeoutError:
        return Health(f"no answer in {PROBE_TIMEOUT_S:.0f} s")
    except KiranaError as error:
        return Health(error.message)


def _report(health: Health) -> PartReport:
    report = msgspec.convert({"state": "ok", **health.details}, PartReport)
    if health.reason is not None:
        report.state, report.reason = "unavailable", health.reason
    return report
