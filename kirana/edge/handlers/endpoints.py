"""`/v1/endpoints`: where requests can be sent without going through the front door."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Protocol

from kirana.edge.http import HttpRequest, json_bytes


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One replica's direct port."""

    replica: str
    url: str


class LiveEndpoints(Protocol):
    """The direct ports that take requests now."""

    def live(self) -> Sequence[Endpoint]:
        """Return them, this replica's own first."""


class NoEndpoints:
    """Implements `LiveEndpoints` where there are no direct ports."""

    def live(self) -> Sequence[Endpoint]:
        return ()


class EndpointHandlers:
    def __init__(self, endpoints: LiveEndpoints) -> None:
        self._endpoints = endpoints

    async def get(self, request: HttpRequest) -> bytes:
        return json_bytes({"endpoints": [asdict(each) for each in self._endpoints.live()]})
