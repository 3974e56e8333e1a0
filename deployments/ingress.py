"""The ingress deployment: the edge behind Serve's front door, handles and a direct port."""

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

WITHDRAW_S = 2.0
"""How many seconds a replica that stops still accepts requests on its direct port.

In this time, the other replicas notice that its endpoint was withdrawn, and clients move on. If
there is no other replica, this time is skipped.
"""

DRAIN_S = 20.0
"""How many seconds ongoing requests on the direct port have to finish after `WITHDRAW_S`.

They have `timeout_ms` if that is longer. Serve ends the replica after `graceful_shutdown_timeout_s`
(`kirana.deployments.options`) in any case.
"""

logger = logging.getLogger("kirana.ingress")

_ALL_ADDRESSES = ("0.0.0.0", "::")


@serve.deployment(name="Ingress", **OPTIONS)
@serve.ingress()
class Ingress:
    """A replica of the edge, with the parts that are fused into it.

    It accepts requests once all parts that routes call are prepared for the live revision.
    """

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
        await resources.probes.check()
        self._edge = Edge(resources, limits, replica.metrics)
        replica.tune_process()
        self._direct = await self._open_direct_port(context.replica_tag)
        self._tasks = [
            asyncio.create_task(live.follow()),
            asyncio.create_task(self._endpoints.follow()),
            asyncio.create_task(resources.probes.follow()),
        ]

    async def _open_direct_port(self, replica: str) -> DirectPort | None:
        """Open the direct port, and announce it under the name `replica`.

        Return None if direct ports are off.
        """
        settings = self._replica.settings
        if not settings.direct_range:
            return None
        host = settings.direct_host or node_address()
        listener = bind_first(host, settings.direct_range)
        finish_s = max(settings.timeout_ms / 1000, DRAIN_S)
        direct = DirectPort(self._edge, listener, finish_s=finish_s)
        await direct.started()
        public_host = _own_address() if host in _ALL_ADDRESSES else host
        public_host = f"[{public_host}]" if ":" in public_host else public_host
        await self._endpoints.announce(Endpoint(replica, f"http://{public_host}:{direct.port}"))
        return direct

    def __serve_build_asgi_app__(self) -> AsgiEdge:
        # Serve adds the request id to the reply.
        return AsgiEdge(self._edge, sends_id=False)

    async def call(
        self,
        method: str,
        path: str,
        query: bytes,
        body: bytes | None,
        binary: bool,
        timeout_ms: int,
        headers: Mapping[str, str],
    ) -> tuple[int, bytes]:
        """Answer a request of `kirana.client.handles`, and return the status and the body.

        They are the same as over HTTP. `headers` are those that identify the request and its
        caller. With `binary`, the bodies are Protobuf, except for errors, which are JSON.
        """
        return await call(self._edge, method, path, query, body, binary, timeout_ms, headers)

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Return the metric for `kirana.deployments.autoscaling`. Serve calls this at intervals.

        The metric is the average number of ongoing requests on the direct port since the last call.
        It is 0 without a direct port.
        """
        return {DIRECT_ONGOING: self._direct.take_average_ongoing() if self._direct else 0.0}

    async def check_health(self) -> None:
        """Raise `RuntimeError` if the direct port or a background task has stopped.

        Serve then replaces the replica.
        """
        if self._direct is not None and not self._direct.serving:
            raise RuntimeError("the server of the direct port stopped")
        if any(task.done() for task in self._tasks):
            raise RuntimeError("a background task stopped")

    async def __del__(self) -> None:
        """Drain the direct port, which Serve does not drain itself, and close the parts."""
        if self._direct is not None:
            try:
                await self._endpoints.withdraw()
            except Exception:
                # The registry's note about this replica expires by itself. Go on, because ongoing
                # requests must still finish.
                logger.warning("the direct port is still in the registry", exc_info=True)
            # If no other replica is live, clients can't move on, so don't wait until they do.
            await self._direct.drain(WITHDRAW_S if self._endpoints.live() else 0.0)
        for task in self._tasks:
            task.cancel()
        await self._replica.close()


def _own_address() -> str:
    """Return the IPv4 address that this machine uses to reach others. No packet is sent.

    Without a route to other machines, return its address in the Ray cluster.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return node_address()
        address: str = probe.getsockname()[0]
        return address
