"""The models of each revision, loaded once a file. See `ModelRunner` for the contract."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import numpy.typing as npt

from kirana.catalog.objects import ModelObject
from kirana.catalog.revisions import CatalogSource, Revisions
from kirana.catalog.snapshot import Catalog
from kirana.errors import Unknown
from kirana.loop import INLINE_CELLS, bounded
from kirana.models.onnx import OnnxModel, Signature
from kirana.models.runner import Scores
from kirana.stores.url import folder_of

_FileKey = tuple[Path, int, int]
"""Path, time of the last change, size."""


class ModelFiles:
    """The model root. Loads a file again only when it has changed."""

    def __init__(self, url: str) -> None:
        self.root = folder_of(url, "file", setting="models")
        self._loaded: dict[_FileKey, OnnxModel] = {}
        self._signatures: dict[_FileKey, Signature] = {}
        self._lock = threading.Lock()

    def load(self, model: ModelObject) -> OnnxModel:
        """Raises `ConfigurationError` for a file that is missing or can't be used."""
        key = self._key(model)
        with self._lock:
            if key not in self._loaded:
                self._loaded[key] = OnnxModel(model.name, key[0])
            return self._loaded[key]

    def signature(self, model: ModelObject) -> Signature:
        """Return what a model takes and gives, without keeping it loaded. Raises as `load`."""
        key = self._key(model)
        if key not in self._signatures:
            self._signatures[key] = OnnxModel(model.name, key[0]).signature
        return self._signatures[key]

    def _key(self, model: ModelObject) -> _FileKey:
        path = self.root / model.path
        try:
            stat = path.stat()
        except (OSError, ValueError):  # ValueError: a NUL
            return (path, 0, 0)
        return (path, stat.st_mtime_ns, stat.st_size)


class ModelRegistry:
    """Implements `ModelRunner` over the files of a root."""

    def __init__(self, files: ModelFiles, source: CatalogSource) -> None:
        self._files = files
        self._models = Revisions(source, self._load_all)

    def _load_all(self, catalog: Catalog) -> dict[str, OnnxModel]:
        return {name: self._files.load(model) for name, model in catalog.models.items()}

    async def prepare(self, revision: int) -> None:
        await self._models.at(revision)

    async def run(
        self, model: str, matrix: npt.NDArray[np.float32], output: str, revision: int
    ) -> Scores:
        models = await self._models.at(revision)
        if model not in models:
            raise Unknown("model", model, models)
        return await bounded(matrix.size <= INLINE_CELLS, models[model].run, matrix, output)
