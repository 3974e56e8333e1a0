"""The front door: the edge, over handles (spread) or with every part in its own replica (fused)."""

from __future__ import annotations

import asyncio
from typing import Any

from ray import serve
from ray.serve.handle import DeploymentHandle

from deployments.handles import RemoteFeatures, RemoteFlows, RemoteInferer, RemoteInteractions
from deployments.logs import start_log
from deployments.options import OPTIONS
from kirana.assembly import (
    build_features,
    build_flows,
    build_inferflow,
    build_interactions,
    build_models,
    open_catalog,
)
from kirana.catalog.revisions import CatalogSource, LiveRevision, Part
from kirana.edge import Edge, Limits, Parts
from kirana.settings import Settings


@serve.deployment(name="Ingress", **OPTIONS)
@serve.ingress()
class Ingress:
    """Without handles it builds the parts itself: that is the fused placement."""

    async def __init__(
        self,
        settings: dict[str, Any],
        features: DeploymentHandle | None = None,
        interactions: DeploymentHandle | None = None,
        inferflow: DeploymentHandle | None = None,
        flows: DeploymentHandle | None = None,
    ) -> None:
        start_log()
        parsed = Settings.model_validate(settings)
        source = open_catalog(parsed)
        if features and interactions and inferflow and flows:
            self._own: _Fused | None = None
            remotes = (
                RemoteFeatures(features),
                RemoteInteractions(interactions),
                RemoteFlows(flows),
                RemoteInferer(inferflow),
            )
            parts, prepared = Parts(*remotes), list[Part](remotes)
        else:
            self._own = _Fused(parsed, source)
            parts, prepared = self._own.parts, self._own.prepared
        live = LiveRevision(source, prepared)
        await live.start()
        limits = Limits(max_body_bytes=parsed.max_body_bytes, timeout_ms=parsed.timeout_ms)
        self._edge = Edge(parts, live, source, limits)
        self._following = asyncio.create_task(live.follow())

    def __serve_build_asgi_app__(self) -> Edge:
        return self._edge

    async def __del__(self) -> None:
        self._following.cancel()
        if self._own is not None:
            await self._own.close()


class _Fused:
    """Every part as a local object of this replica."""

    def __init__(self, settings: Settings, source: CatalogSource) -> None:
        self._features = build_features(settings, source)
        self._interactions = build_interactions(settings, source)
        models = build_models(settings, source)
        inferflow = build_inferflow(self._features, models, source)
        flows = build_flows(self._features, self._interactions, inferflow, source)
        self.parts = Parts(self._features, self._interactions, flows, inferflow)
        # inferflow prepares the models that it calls
        self.prepared: list[Part] = [self._features, self._interactions, inferflow, flows]

    async def close(self) -> None:
        await self._features.close()
        await self._interactions.close()
