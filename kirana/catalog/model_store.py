"""The model files, as the catalog uses them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from kirana.catalog.objects import ModelObject
from kirana.models.onnx import Signature
from kirana.models.trial import Finding


class ModelStore(Protocol):
    """A model without `sha256` is the file at its path, one with it the copy of that digest."""

    def digest(self, model: ModelObject) -> str:
        """Return the digest of the bytes that a model would be published with.

        Raises `ConfigurationError` if its file is missing, or its digest names a copy that is
        gone.
        """

    def signature(self, model: ModelObject) -> Signature:
        """Return what a model takes and gives. Raises `ConfigurationError` if it can't be used."""

    def try_out(
        self, model: ModelObject, row: npt.NDArray[np.float32], outputs: Sequence[str]
    ) -> list[Finding]:
        """Run a model on a few times `row`, of shape (columns,), within seconds."""

    def pin(self, catalog: str, revision: int, models: Iterable[ModelObject]) -> None:
        """Copy what the revision names, so that its bytes stay what they are.

        Raises `Conflict` if a file is not any more what it was when it was checked, `Unavailable`
        if it can't be copied.
        """

    def prune(self, catalog: str, oldest: int) -> None:
        """Remove the copies that no revision from `oldest` on names, nor another catalog."""
