"""The handler of `/healthz`: the state of the catalog, and of the parts that routes call."""

from __future__ import annotations

import msgspec
from msgspec import UNSET

from kirana.catalog.revisions import LiveRevision
from kirana.edge.exchange import Request, Response, json_response
from kirana.edge.replies import HealthReply, PartReport
from kirana.edge.resources import Resources
from kirana.revision import Revision
from kirana.service import Health


async def health(request: Request, resources: Resources) -> Response:
    """Return the state of the catalog and of each part, with a 503 if a part is unavailable.

    The states of the parts are those of the last background check. Raise `Unavailable` if there
    was none, or none of late.
    """
    states, age_s = resources.probes.latest()
    parts = {name: _report(state) for name, state in states.items()}
    parts["catalog"] = _catalog(resources.live, request.context.revision)
    age_ms = int(age_s * 1000)
    if all(report.state == "ok" for report in parts.values()):
        return json_response(HealthReply("ok", parts, age_ms))
    return json_response(HealthReply("unavailable", parts, age_ms), status=503)


def _catalog(live: LiveRevision, revision: Revision) -> PartReport:
    """Return the report of the catalog: always "ok", because requests run on a loaded revision."""
    return PartReport(
        "ok",
        revision=revision.number,
        catalog=revision.catalog,
        refused_revisions=live.refused,
        away_since=UNSET if live.away_since is None else int(live.away_since * 1000),
    )


def _report(health: Health) -> PartReport:
    report = msgspec.convert({"state": "ok", **health.details}, PartReport)
    if health.reason is not None:
        report.state, report.reason = "unavailable", health.reason
    return report
