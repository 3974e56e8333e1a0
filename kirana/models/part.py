"""The models as a part."""

from __future__ import annotations

from pydantic import BaseModel

from kirana.models.runner import ModelRunner
from kirana.part import Part, Wiring


class ModelSettings(BaseModel):
    """`models` is the URL of the root below which model files lie."""

    models: str


def _build(wiring: Wiring) -> ModelRunner:
    from kirana.models.registry import LoadedModels, ModelRegistry

    loaded = LoadedModels.below(wiring.settings(ModelSettings).models)
    return ModelRegistry(loaded, wiring.source)


MODELS = Part(
    name="models",
    deployment="ModelReplica",
    protocol=ModelRunner,
    build=_build,
    settings=ModelSettings,
    at_edge=False,
)
