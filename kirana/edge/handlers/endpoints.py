"""`/v1/endpoints`: where requests can be sent without going through the front door."""

from __future__ import annotations

from dataclasses import asdict

from kirana.doors.endpoints import Endpoints
from kirana.edge.http import HttpRequest, json_bytes


class EndpointHandlers:
    def __init__(self, endpoints: Endpoints) -> None:
        self._endpoints = endpoints

    async def get(self, request: HttpRequest) -> bytes:
        return json_bytes({"endpoints": [asdict(each) for each in self._endpoints.live()]})
