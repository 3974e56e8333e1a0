"""The doors: the edge under Serve's ingress, and the same edge on a port of the replica's own."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Mapping
from typing import Any

from ray import serve
from ray.serve.handle import DeploymentHandle

from kirana.catalog.revisions import LiveRevision
from kirana.deployments.autoscaling import DIRECT_ONGOING
from kirana.deployments.endpoint_registry import GcsEndpointRegistry
from kirana.deployments.options import OPTIONS
from kirana.deployments.replica import Replica, node_address
from kirana.doors.direct import DirectPort
from kirana.doors.endpoints import Endpoint, Endpoints
from kirana.doors.handle import call
from kirana.edge import Edge, Limits
from kirana.edge.asgi import AsgiEdge
from kirana.edge.resources import Resources
from kirana.serving.preflight import bind_first

MOVING_S = 2.0
"""How long a replica that goes still takes requests: until all have seen that it was withdrawn."""

FINISH_S = 20.0
"""How long requests on the direct port have to end after that, at least."""

logger = logging.getLogger("kirana.ingress")

_EVERY_ADDRESS = ("0.0.0.0", "::")


@serve.deployment(name="Ingress", **OPTIONS)
@serve.ingress()
class Ingress:
    async def __init__(
        self, settings: Mapping[str, Any], handles: Mapping[str, DeploymentHandle]
    ) -> None:
        self._direct: DirectPort | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._replica = replica = Replica("ingress", settings, handles)
        parts = replica.assembly.at_edge()
        live = LiveRevision(replica.source, [part for _, part in parts])
        await live.start()
        context = serve.get_replica_context()
        self._endpoints = Endpoints(GcsEndpointRegistry(context.app_name))
        limits = Limits(
            max_body_bytes=replica.settings.max_body_bytes,
            timeout_ms=replica.settings.timeout_ms,
            max_ongoing=replica.settings.max_ongoing,
        )
        resources = Resources(
            parts, live, replica.source, publisher=replica.source.backend, endpoints=self._endpoints
        )
        self._edge = Edge(resources, limits, replica.metrics)
        replica.settle()
        self._direct = await self._open_direct_port(context.replica_tag)
        self._tasks = [
            asyncio.create_task(live.follow()),
            asyncio.create_task(self._endpoints.follow()),
        ]

    async def _open_direct_port(self, replica: str) -> DirectPort | None:
        settings = self._replica.settings
        if not settings.direct_range:
            return None
        host = settings.direct_host or node_address()
        listening = bind_first(host, settings.direct_range)
        finish_s = max(settings.timeout_ms / 1000, FINISH_S)
        direct = DirectPort(self._edge, listening, finish_s=finish_s)
        await direct.started()
        shown = _own_address() if host in _EVERY_ADDRESS else host
        shown = f"[{shown}]" if ":" in shown else shown
        await self._endpoints.announce(Endpoint(replica, f"http://{shown}:{direct.port}"))
        return direct

    def __serve_build_asgi_app__(self) -> AsgiEdge:
        # Serve adds the id of a request to the reply by itself
        return AsgiEdge(self._edge, sends_id=False)

    async def call(
        self,
        method: str,
        path: str,
        query: bytes,
        body: bytes | None,
        binary: bool,
        timeout_ms: int,
        named: Mapping[str, str],
    ) -> tuple[int, bytes]:
        """What `kirana.client.handles` calls."""
        return await call(self._edge, method, path, query, body, binary, timeout_ms, named)

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """What `kirana.deployments.autoscaling` adds to the requests that Serve counts."""
        return {DIRECT_ONGOING: self._direct.average_ongoing() if self._direct else 0.0}

    async def check_health(self) -> None:
        """Raises if the direct port has ended, so that Serve replaces the replica."""
        if self._direct is not None and not self._direct.serving:
            raise RuntimeError("the direct port ended")

    async def __del__(self) -> None:
        """Serve's drain knows nothing of the direct port: it is drained here."""
        if self._direct is not None:
            try:
                await self._endpoints.withdraw()
            except Exception:
                # its note goes stale by itself; what is under way must be finished all the same
                logger.warning("the direct port could not be withdrawn", exc_info=True)
            # with nobody to move to, waiting helps nobody
            await self._direct.drain(MOVING_S if self._endpoints.live() else 0.0)
        for task in self._tasks:
            task.cancel()
        await self._replica.close()


def _own_address() -> str:
    """Return the address that other machines see; no packet is sent for it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            # no route leads out of this machine
            return node_address()
        address: str = probe.getsockname()[0]
        return address
