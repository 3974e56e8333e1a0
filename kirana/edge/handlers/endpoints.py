"""`/v1/endpoints`: where requests can be sent without going through the front door."""

from __future__ import annotations

from kirana.edge.exchange import Request, Response, json_response
from kirana.edge.replies import DirectPort, EndpointsReply
from kirana.edge.resources import Resources


async def endpoints(request: Request, resources: Resources) -> Response:
    live = [DirectPort(each.replica, each.url) for each in resources.endpoints.live()]
    return json_response(EndpointsReply(live))
