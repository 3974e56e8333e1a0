"""The table of the parts. Each one is declared in the `part.py` of its own room."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kirana.features.part import FEATURES
from kirana.flow.part import FLOWS
from kirana.inferflow.part import INFERFLOW
from kirana.interactions.part import INTERACTIONS
from kirana.models.part import MODELS
from kirana.part import Part, StoreSetting

INGRESS = "ingress"
"""The owner of the edge: it has the parts that routes call, or calls them where they are spread."""

PARTS: Sequence[Part[Any]] = (FEATURES, INTERACTIONS, MODELS, INFERFLOW, FLOWS)
"""Each calls only what stands before it."""


def stores_of(parts: Sequence[Part[Any]]) -> dict[str, StoreSetting]:
    """Return the stores of all parts, by their settings."""
    return {store.name: store for part in parts for store in part.stores}
