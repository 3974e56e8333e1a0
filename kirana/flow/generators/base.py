"""What a candidate generator is: one interface, so that one node calls any of them."""

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
"""Ids, and a weight for each, best first."""


class Generator(Protocol):
    needs_seeds: bool
    """Whether it starts from interactions, so that its node must consume some."""

    async def generate(
        self,
        seeds: Interactions,
        context: Mapping[str, Any],
        limit: int,
        features: FeatureSource,
        request: RequestContext,
    ) -> Generated: ...


def list_features(
    catalog: Catalog, ids: str, weights: str
) -> tuple[FeatureGroup, Feature, Feature]:
    """Find a stored list: a vector of integer ids, and one of as many weights beside it.

    Raises `CatalogError` with paths below `with`.
    """
    try:
        group, id_feature = catalog.feature(ids, field="with.ids")
        weight_group, weight_feature = catalog.feature(weights, field="with.weights")
    except KiranaError as error:
        raise CatalogError([Problem(error.message, path=error.field or "")]) from None
    if "int" not in id_feature.dtype or len(id_feature.shape) != 1:
        raise CatalogError([Problem(f"'{ids}' must be a vector of integers", path="with.ids")])
    if weight_group != group or weight_feature.shape != id_feature.shape:
        reason = f"'{weights}' must be a vector of the group and length of '{ids}'"
        raise CatalogError([Problem(reason, path="with.weights")])
    return group, id_feature, weight_feature
