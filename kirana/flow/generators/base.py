"""The interface of candidate generators, and a check that several of them share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from kirana.catalog.snapshot import Catalog
from kirana.errors import CatalogError, KiranaError, Problem
from kirana.features import FeatureSource
from kirana.interactions import Interactions
from kirana.request import RequestContext
from kirana.schema import Feature, FeatureGroup

Generated = tuple[list[str], npt.NDArray[np.float32]]
"""Candidate ids, and the weight of each id. The best come first."""


class Generator(Protocol):
    """A source of candidates, which a `candidates` node calls."""

    needs_seeds: bool
    """Whether the node that calls it must consume interactions, which are passed as seeds."""

    async def generate(
        self,
        seeds: Interactions,
        context: Mapping[str, Any],
        limit: int,
        features: FeatureSource,
        request: RequestContext,
    ) -> Generated:
        """Return up to `limit` candidates, best first.

        `seeds` are interactions, newest first. They are empty unless `needs_seeds`. `context` has
        the ids and values of the flow's request. Raise `InvalidInput` if an id that the generator
        needs is missing in the context, or invalid. Also raise the errors of `features.read`.
        """


def list_features(
    catalog: Catalog, ids: str, weights: str
) -> tuple[FeatureGroup, Feature, Feature]:
    """Return the group of a stored list, and its features for ids and for weights.

    `ids` must be a vector of integers, and `weights` a vector of the same length in the same group.
    Raise `CatalogError` with the path `with.ids` or `with.weights` if a feature is unknown or does
    not fit.
    """
    try:
        group, id_feature = catalog.feature(ids, field="with.ids")
        weight_group, weight_feature = catalog.feature(weights, field="with.weights")
    except KiranaError as error:
        raise CatalogError([Problem(error.message, path=error.field or "")]) from None
    if "int" not in id_feature.dtype or len(id_feature.shape) != 1:
        raise CatalogError([Problem(f"'{ids}' must be a vector of integers", path="with.ids")])
    if weight_group != group or weight_feature.shape != id_feature.shape:
        reason = f"'{weights}' must be in the same group as '{ids}', with the same length"
        raise CatalogError([Problem(reason, path="with.weights")])
    return group, id_feature, weight_feature
