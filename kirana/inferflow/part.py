"""The declaration of the Inferflow part."""

from __future__ import annotations

from kirana.features.part import FEATURES
from kirana.inferflow.source import InferflowRunner
from kirana.models.part import MODELS
from kirana.part import Part, Wiring


def _build(wiring: Wiring) -> InferflowRunner:
    from kirana.inferflow.engine import InferflowService

    return InferflowService(wiring[FEATURES], wiring[MODELS], wiring.source)


INFERFLOW = Part(
    name="inferflow",
    deployment="Inferflow",
    protocol=InferflowRunner,
    build=_build,
    calls=(FEATURES, MODELS),
)
