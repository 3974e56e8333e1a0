"""The handler of `/v1/endpoints`: the direct ports, which bypass the front door."""

from __future__ import annotations

from kirana.edge.exchange import Request, Response, json_response
from kirana.edge.replies import DirectPort, EndpointsReply
from kirana.edge.resources import Resources


async def endpoints(request: Request, resources: Resources) -> Response:
    """Return the live direct ports, this replica's own first."""
    ports = [DirectPort(port.replica, port.url) for port in resources.endpoints.live()]
    return json_response(EndpointsReply(ports))
