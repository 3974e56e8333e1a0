"""The model files that people bring, as the catalog looks into them before it pins them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from kirana.catalog.objects import ModelObject
from kirana.catalog.stamps import Stamp, stamp_of
from kirana.errors import ConfigurationError, Unavailable
from kirana.models.copies import ModelCopies, digest_of
from kirana.models.external_data import files_of
from kirana.models.onnx import OnnxModel, Signature, require_file
from kirana.models.trial import TrialResult, try_out
from kirana.urls import folder_of

logger = logging.getLogger(__name__)

MAX_REMEMBERED = 1_024


@dataclass(frozen=True, slots=True)
class _Source:
    files: tuple[str, ...]
    stamps: tuple[Stamp, ...]
    digest: str


class ModelFiles:
    """Implements `kirana.catalog.checks.ModelStore` over a folder."""

    def __init__(self, url: str) -> None:
        self.root = folder_of(url, "file", setting="models")
        self.copies = ModelCopies(self.root)
        self._sources: dict[Path, _Source] = {}
        self._signatures: dict[str, Signature] = {}
        self._findings: dict[tuple[str, bytes, tuple[str, ...]], list[TrialResult]] = {}
        self._lock = threading.Lock()

    def digest(self, model: ModelObject) -> str:
        """Return the digest of the bytes that a model would be published with.

        Raises `ConfigurationError` if its file is missing, or its digest names a copy that is
        gone.
        """
        if model.sha256 is None:
            return self._source(model).digest
        if self.copies.path(model) is None:
            raise ConfigurationError(
                f"model '{model.name}': there is no copy of {model.sha256}: leave 'sha256' out to "
                f"take the file {model.path}",
                field="sha256",
            )
        return model.sha256

    def signature(self, model: ModelObject) -> Signature:
        """Return what a model takes and gives. Raises `ConfigurationError` if it can't be used."""
        digest = model.sha256 or self.digest(model)
        if digest not in self._signatures:
            self._signatures[digest] = self._open(model).signature
        return self._signatures[digest]

    def try_out(
        self, model: ModelObject, row: npt.NDArray[np.float32], outputs: Sequence[str]
    ) -> list[TrialResult]:
        """Run a model on a few times `row`; what was tried before is remembered."""
        key = (model.sha256 or self.digest(model), row.tobytes(), tuple(outputs))
        if key not in self._findings:
            if len(self._findings) >= MAX_REMEMBERED:
                self._findings.clear()
            findings = try_out(self._open(model), row, outputs)
            if any(each.late for each in findings):
                # the machine may have been busy
                return findings
            self._findings[key] = findings
        return self._findings[key]

    def pin(self, catalog: str, revision: int, models: Iterable[ModelObject]) -> None:
        """Copy what the revision names, so that its bytes stay what they are.

        Raises `Conflict` if a file is not any more what it was when it was checked, `Unavailable`
        if it can't be copied.
        """
        pinned = [each for each in models if each.sha256 is not None]
        if not pinned:
            return
        try:
            self.copies.note(catalog, revision, [str(each.sha256) for each in pinned])
            for each in pinned:
                if self.copies.path(each) is None:
                    source = self._source(each)
                    folder = (self.root / each.path).parent
                    self.copies.add(each.name, folder, source.files, str(each.sha256))
        except OSError as error:
            raise Unavailable(
                f"models: no copies can be made below {self.root}: {error}"
            ) from error

    def prune(self, catalog: str, oldest: int) -> None:
        """Remove the copies that no revision from `oldest` on names, nor another catalog.

        The revision is live already: what can't be removed now is removed after the next one.
        """
        try:
            self.copies.prune(catalog, oldest)
        except (OSError, ValueError) as error:
            logger.warning("copies of models below %s are not removed: %s", self.root, error)

    def _open(self, model: ModelObject) -> OnnxModel:
        # what is checked before it is published has a digest, and no copy yet
        copy = self.copies.path(model) if model.sha256 is not None else None
        return OnnxModel(model.name, copy or self.root / model.path)

    def _source(self, model: ModelObject) -> _Source:
        path = self.root / model.path
        require_file(model.name, path)
        with self._lock:
            known = self._sources.get(path)
            if known is None or known.stamps != _stamps(path.parent, known.files):
                files = files_of(model.name, path)
                stamps = _stamps(path.parent, files)
                known = _Source(files, stamps, digest_of(path.parent, files))
                self._sources[path] = known
            return known


def _stamps(folder: Path, files: Iterable[str]) -> tuple[Stamp, ...]:
    return tuple(stamp_of(folder / each) for each in files)
