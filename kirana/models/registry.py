"""The models of each revision, loaded once a digest. See `ModelRunner` for the contract."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from kirana.catalog.objects import ModelObject
from kirana.catalog.revisions import CatalogSource, Revisions
from kirana.catalog.snapshot import Catalog
from kirana.errors import Unknown
from kirana.loop import INLINE_CELLS, inline_or_thread
from kirana.models.copies import ModelCopies
from kirana.models.onnx import OnnxModel
from kirana.models.runner import Scores
from kirana.request import RequestContext
from kirana.revision import Revision
from kirana.service import Health
from kirana.urls import folder_of


class LoadedModels:
    """Sessions of the copies below a model root, each loaded once and checked by its digest."""

    @classmethod
    def below(cls, url: str) -> LoadedModels:
        """Load from the copies below a model root. Raises `ConfigurationError` for its URL."""
        return cls(ModelCopies(folder_of(url, "file", setting="models")))

    def __init__(self, copies: ModelCopies) -> None:
        self._copies = copies
        self._loaded: dict[str, OnnxModel] = {}
        self._lock = threading.Lock()

    def load(self, model: ModelObject) -> OnnxModel:
        """Raises `ConfigurationError` for a copy that is missing, changed, or can't be used."""
        with self._lock:
            found = self._loaded.get(model.sha256 or "")
            if found is None:
                found = OnnxModel(model.name, self._copies.checked_path(model))
                self._loaded[str(model.sha256)] = found
            return found


class ModelRegistry:
    """Implements `ModelRunner` over the copies that revisions pin."""

    def __init__(self, loaded: LoadedModels, source: CatalogSource) -> None:
        self._loaded = loaded
        self._models = Revisions(source, self._load_all)

    def _load_all(self, catalog: Catalog) -> dict[str, OnnxModel]:
        return {name: self._loaded.load(model) for name, model in catalog.models.items()}

    async def prepare(self, revision: Revision) -> None:
        await self._models.at(revision)

    async def health(self, revision: Revision) -> Health:
        await self.prepare(revision)
        return Health()

    async def run(
        self,
        model: str,
        inputs: Mapping[str, npt.NDArray[np.float32]],
        outputs: Sequence[str],
        context: RequestContext,
    ) -> dict[str, Scores]:
        models = await self._models.at(context.revision)
        if model not in models:
            raise Unknown("model", model, models)
        cells = sum(each.size for each in inputs.values())
        return await inline_or_thread(cells <= INLINE_CELLS, models[model].run, inputs, outputs)
