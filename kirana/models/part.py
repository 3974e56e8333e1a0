"""The declaration of the models part."""

from __future__ import annotations

from pydantic import BaseModel

from kirana.models.runner import ModelRunner
from kirana.part import Part, Wiring


class ModelSettings(BaseModel):
    """Settings of the models part. `models` is the URL of the folder that holds the model files."""

    models: str


def _build(wiring: Wiring) -> ModelRunner:
    from kirana.models.copies import ModelCopies
    from kirana.models.loaded import LoadedModels
    from kirana.models.registry import ModelRegistry

    loaded = LoadedModels(ModelCopies.below(wiring.settings(ModelSettings).models))
    return ModelRegistry(loaded, wiring.source)


MODELS = Part(
    name="models",
    deployment="ModelReplica",
    protocol=ModelRunner,
    build=_build,
    settings=ModelSettings,
    at_edge=False,
)
