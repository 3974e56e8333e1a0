"""From settings to parts: each built from its local objects unless it is given, on one catalog."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from kirana.catalog.directory import DirectoryCatalog
from kirana.catalog.publishing import CatalogPlace
from kirana.catalog.revisions import CatalogSource, Part
from kirana.catalog.snapshot import Catalog
from kirana.catalog.zookeeper import ZookeeperCatalog
from kirana.edge.parts import Parts
from kirana.errors import ConfigurationError
from kirana.features import Features
from kirana.features.cache import FeatureCache
from kirana.features.service import FeatureService
from kirana.flow import FlowRunner
from kirana.flow.executor import FlowService
from kirana.flow.nodes.base import Services
from kirana.inferflow import InferflowRunner
from kirana.inferflow.engine import InferflowService
from kirana.interactions import InteractionSource
from kirana.interactions.open import open_interaction_store
from kirana.interactions.service import InteractionService
from kirana.models import ModelRunner
from kirana.models.files import ModelFiles
from kirana.models.registry import LoadedModels, ModelRegistry
from kirana.revision import Revision
from kirana.serving.checks import checks_of
from kirana.serving.settings import Settings
from kirana.stores import open_feature_store
from kirana.urls import folder_of, scheme_of


class SharedCatalog:
    """Reads each revision once for all the parts of a process; `place` is where it is published."""

    def __init__(self, place: CatalogPlace) -> None:
        self.place = place
        self._latest: Catalog | None = None
        self._lock = threading.Lock()

    def current(self) -> Revision:
        """See `CatalogSource`."""
        return self.place.current()

    def away_since(self) -> float | None:
        """See `CatalogSource`."""
        return self.place.away_since()

    def load(self, revision: Revision) -> Catalog:
        with self._lock:
            if self._latest is None or self._latest.revision != revision:
                self._latest = self.place.load(revision)
            return self._latest

    def close(self) -> None:
        self.place.close()


def open_catalog(settings: Settings) -> SharedCatalog:
    """Raises `ConfigurationError` if the URL names no catalog."""
    return SharedCatalog(catalog_place(settings))


def catalog_place(
    settings: Settings, source: Path | None = None, *, look_into_models: bool = True
) -> CatalogPlace:
    """Return what checks and publishes `source`; a catalog in a folder is its own source.

    Raises `ConfigurationError` if the URL names no place of a catalog.
    """
    checks = checks_of(ModelFiles(settings.models) if look_into_models else None)
    kept = settings.kept_revisions
    scheme = scheme_of(settings.catalog)
    if scheme == "zk":
        return ZookeeperCatalog(settings.catalog, source, checks, kept=kept)
    if scheme != "dir":
        raise ConfigurationError(
            f"catalog: '{settings.catalog}' names no place that Kirana knows; use "
            "dir:///absolute/folder or zk://host:port/root",
            field="catalog",
        )
    folder = folder_of(settings.catalog, "dir", setting="catalog")
    return DirectoryCatalog(folder, checks, kept=kept)


class Assembly:
    """The parts of one process, each made when it is first asked for.

    `remote` holds those that run elsewhere, by their names in `kirana.serving.placement.PARTS`; the
    others become local objects, which call what is in `remote` where they call that.
    """

    def __init__(
        self, settings: Settings, source: CatalogSource, remote: Mapping[str, Any] | None = None
    ) -> None:
        self._settings = settings
        self._source = source
        self._remote = remote or {}
        self._stores: list[FeatureService | InteractionService] = []

    @cached_property
    def features(self) -> Features:
        remote: Features | None = self._remote.get("features")
        if remote is not None:
            return remote
        settings = self._settings
        service = FeatureService(
            open_feature_store(settings.features),
            self._source,
            cache=_cache_of(settings),
            fail_when_unavailable=settings.features_unavailable == "error",
        )
        self._stores.append(service)
        return service

    @cached_property
    def interactions(self) -> InteractionSource:
        remote: InteractionSource | None = self._remote.get("interactions")
        if remote is not None:
            return remote
        store = open_interaction_store(self._settings.interactions)
        service = InteractionService(store, self._source)
        self._stores.append(service)
        return service

    @cached_property
    def models(self) -> ModelRunner:
        remote: ModelRunner | None = self._remote.get("models")
        if remote is not None:
            return remote
        return ModelRegistry(LoadedModels.below(self._settings.models), self._source)

    @cached_property
    def inferflow(self) -> InferflowRunner:
        remote: InferflowRunner | None = self._remote.get("inferflow")
        return remote or InferflowService(self.features, self.models, self._source)

    @cached_property
    def flows(self) -> FlowRunner:
        remote: FlowRunner | None = self._remote.get("flows")
        if remote is not None:
            return remote
        services = Services(self.features, self.interactions, self.inferflow)
        return FlowService(services, self._source)

    @property
    def parts(self) -> Parts:
        """What the edge calls."""
        return Parts(self.features, self.interactions, self.flows, self.inferflow)

    @property
    def prepared(self) -> list[Part]:
        """What has to be ready before a revision goes live; inferflow readies its models."""
        return [self.features, self.interactions, self.inferflow, self.flows]

    async def close(self) -> None:
        """Close the stores that were opened here."""
        for store in self._stores:
            await store.close()


def _cache_of(settings: Settings) -> FeatureCache | None:
    """What lies in this machine's memory already is not kept twice."""
    if not settings.cache_bytes or scheme_of(settings.features) in ("lmdb", "memory"):
        return None
    return FeatureCache(settings.cache_bytes, settings.cache_fresh_ms / 1000)
