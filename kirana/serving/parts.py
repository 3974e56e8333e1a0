"""The table of parts. Each one is declared in the `part.py` of its package."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kirana.features.part import FEATURES
from kirana.flow.part import FLOWS
from kirana.inferflow.part import INFERFLOW
from kirana.interactions.part import INTERACTIONS
from kirana.models.part import MODELS
from kirana.part import Part, StoreSetting
from kirana.streams.part import STREAMS

INGRESS = "ingress"
"""The name of the ingress (the deployment of the edge) among owners of parts. It is not a part."""

PARTS: Sequence[Part[Any]] = (FEATURES, STREAMS, INTERACTIONS, MODELS, INFERFLOW, FLOWS)
"""All parts. Each one calls only parts that are listed before it."""


def store_settings(parts: Sequence[Part[Any]]) -> dict[str, StoreSetting]:
    """Return the stores of these parts, by the name of their setting."""
    return {store.name: store for part in parts for store in part.stores}
