"""The model files that users provide, which are checked and pinned when a catalog is published."""

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
"""The most results of trials that are remembered. At this limit, all are forgotten."""


@dataclass(frozen=True, slots=True)
class _Source:
    """The files of a model, relative to its folder, and their digest.

    `stamps` show whether the files were changed after the digest was computed.
    """

    files: tuple[str, ...]
    stamps: tuple[Stamp, ...]
    digest: str


class ModelFiles:
    """`kirana.catalog.checks.ModelStore` over the folder at a `file://` URL, the model root.

    Raise `ConfigurationError` if the URL is invalid.
    """

    def __init__(self, url: str) -> None:
        self.root = folder_of(url, "file", setting="models")
        self.copies = ModelCopies(self.root)
        self._sources: dict[Path, _Source] = {}
        self._signatures: dict[str, Signature] = {}
        self._trials: dict[tuple[str, bytes, tuple[str, ...]], list[TrialResult]] = {}
        self._lock = threading.Lock()

    def digest(self, model: ModelObject) -> str:
        """Return the digest of the bytes that a model would be published with.

        This is the model's `sha256`, or the digest of its files if it has none. Raise
        `ConfigurationError` if there is no copy for its `sha256`, or if its files can't be read.
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
        """Return the signature of a model. Raise `ConfigurationError` if it can't be loaded."""
        digest = model.sha256 or self.digest(model)
        if digest not in self._signatures:
            self._signatures[digest] = self._open(model).signature
        return self._signatures[digest]

    def try_out(
        self, model: ModelObject, row: npt.NDArray[np.float32], outputs: Sequence[str]
    ) -> list[TrialResult]:
        """Try a model on a few copies of `row`, `float32[columns]`; return what went wrong.

        The result is remembered, unless the trial took too long.
        """
        key = (model.sha256 or self.digest(model), row.tobytes(), tuple(outputs))
        if key not in self._trials:
            if len(self._trials) >= MAX_REMEMBERED:
                self._trials.clear()
            findings = try_out(self._open(model), row, outputs)
            if any(finding.late for finding in findings):
                # The machine may have been busy, so the next call tries again.
                return findings
            self._trials[key] = findings
        return self._trials[key]

    def pin(self, catalog: str, revision: int, models: Iterable[ModelObject]) -> None:
        """Copy the model files that a revision uses, so that later changes do not affect it.

        Models without a digest are skipped. Raise `Conflict` if a file was changed after it was
        checked, `ConfigurationError` if it is missing or invalid, and `Unavailable` if it can't be
        copied.
        """
        pinned = [model for model in models if model.sha256 is not None]
        if not pinned:
            return
        try:
            self.copies.record_use(catalog, revision, [str(model.sha256) for model in pinned])
            for model in pinned:
                if self.copies.path(model) is None:
                    source = self._source(model)
                    folder = (self.root / model.path).parent
                    self.copies.add(model.name, folder, source.files, str(model.sha256))
        except OSError as error:
            raise Unavailable(
                f"models: the model files below {self.root} can't be copied: {error}"
            ) from error

    def prune(self, catalog: str, oldest: int) -> None:
        """Forget the revisions of `catalog` before `oldest`; remove copies that no revision uses.

        The new revision is published already, so errors are only logged. The next call tries again.
        """
        try:
            self.copies.prune(catalog, oldest)
        except (OSError, ValueError) as error:
            logger.warning("copies of models below %s can't be removed: %s", self.root, error)

    def _open(self, model: ModelObject) -> OnnxModel:
        """Load a model from its copy, or from the user's file if there is no copy."""
        # When a new model is checked, it has a digest already, but no copy yet.
        copy = self.copies.path(model) if model.sha256 is not None else None
        return OnnxModel(model.name, copy or self.root / model.path)

    def _source(self, model: ModelObject) -> _Source:
        """Return the files of a model and their digest, which is kept until a file changes."""
        path = self.root / model.path
        require_file(model.name, path)
        with self._lock:
            source = self._sources.get(path)
            if source is None or source.stamps != _stamps(path.parent, source.files):
                files = files_of(model.name, path)
                stamps = _stamps(path.parent, files)
                source = _Source(files, stamps, digest_of(path.parent, files))
                self._sources[path] = source
            return source


def _stamps(folder: Path, files: Iterable[str]) -> tuple[Stamp, ...]:
    """Return the stamps of files in `folder`. A stamp changes when its file is changed."""
    return tuple(stamp_of(folder / name) for name in files)
