"""From settings to parts: every service built from its local objects, sharing one catalog."""

from __future__ import annotations

import threading

from kirana.catalog.directory import DirectoryCatalog
from kirana.catalog.revisions import CatalogSource
from kirana.catalog.snapshot import Catalog
from kirana.features import FeatureSource
from kirana.features.service import FeatureService
from kirana.flow.executor import FlowService
from kirana.flow.nodes.base import Services
from kirana.inferflow import Inferer
from kirana.inferflow.engine import InferflowService
from kirana.interactions import InteractionSource
from kirana.interactions.open import open_interaction_store
from kirana.interactions.service import InteractionService
from kirana.models import ModelRunner
from kirana.models.registry import ModelFiles, ModelRegistry
from kirana.settings import Settings
from kirana.stores import open_feature_store
from kirana.stores.url import folder_of


class SharedCatalog:
    """Reads each revision once for all the parts of a process."""

    def __init__(self, source: CatalogSource) -> None:
        self._source = source
        self._latest: Catalog | None = None
        self._lock = threading.Lock()

    def current(self) -> int:
        return self._source.current()

    def load(self, revision: int) -> Catalog:
        with self._lock:
            if self._latest is None or self._latest.revision != revision:
                self._latest = self._source.load(revision)
            return self._latest


def open_catalog(settings: Settings) -> CatalogSource:
    """Raises `ConfigurationError` if the URL names no catalog."""
    return SharedCatalog(DirectoryCatalog(folder_of(settings.catalog, "dir", setting="catalog")))


def build_features(settings: Settings, source: CatalogSource) -> FeatureService:
    return FeatureService(open_feature_store(settings.features), source)


def build_interactions(settings: Settings, source: CatalogSource) -> InteractionService:
    return InteractionService(open_interaction_store(settings.interactions), source)


def build_models(settings: Settings, source: CatalogSource) -> ModelRegistry:
    return ModelRegistry(ModelFiles(settings.models), source)


def build_inferflow(
    features: FeatureSource, models: ModelRunner, source: CatalogSource
) -> InferflowService:
    return InferflowService(features, models, source)


def build_flows(
    features: FeatureSource,
    interactions: InteractionSource,
    inferer: Inferer,
    source: CatalogSource,
) -> FlowService:
    return FlowService(Services(features, interactions, inferer), source)
