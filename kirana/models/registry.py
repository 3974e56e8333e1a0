"""The part that runs the models of each revision. `kirana.models.runner` has the interface."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from kirana.catalog.revisions import CatalogSource, Revisions
from kirana.catalog.snapshot import Catalog
from kirana.errors import Unknown
from kirana.memory import return_free_memory
from kirana.models.loaded import LoadedModel, LoadedModels
from kirana.models.runner import Scores
from kirana.request import RequestContext
from kirana.revision import Revision
from kirana.service import Health


class ModelRegistry:
    """`ModelRunner` over the copies of model files that revisions use."""

    def __init__(self, loaded: LoadedModels, source: CatalogSource) -> None:
        self._loaded = loaded
        self._models = Revisions(source, self._load_all, after_drop=return_free_memory)

    def _load_all(self, catalog: Catalog) -> dict[str, LoadedModel]:
        """Load all models of a catalog; return them by name."""
        return {name: self._loaded.load(model) for name, model in catalog.models.items()}

    async def prepare(self, revision: Revision) -> None:
        """Load all models of a revision. Raise `Unavailable` if one can't be loaded."""
        await self._models.at(revision)

    async def health(self, revision: Revision) -> Health:
        """Load all models of a revision as `prepare` does; raise `Unavailable` if that fails."""
        await self.prepare(revision)
        return Health()

    async def run(
        self,
        model: str,
        inputs: Mapping[str, npt.NDArray[np.float32]],
        outputs: Sequence[str],
        context: RequestContext,
    ) -> dict[str, Scores]:
        """Run a model: on the event loop if that was measured to be short, otherwise in a thread.

        Raise `Overloaded` if too many runs of the model wait for a thread. Also raise the errors of
        the protocol.
        """
        models = await self._models.of(context)
        if model not in models:
            raise Unknown("model", model, models)
        return await models[model].run(inputs, outputs)
