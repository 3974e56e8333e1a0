"""The `neighbours` generator: products that are similar to a user's recent products.

Each product has a stored list of neighbours with weights. The weight of a candidate is the sum of
decay^age * weight over the seeds that list it. The age of a seed is its position among the distinct
seeds, from 0 for the newest. Seeds with the same timestamp have the same age, the mean of their
positions, because their order is arbitrary.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from kirana.catalog.objects import Strict
from kirana.catalog.snapshot import Catalog
from kirana.errors import CatalogError, Problem
from kirana.features import FeatureQuery, FeatureSource
from kirana.flow.generators.base import Generated, list_features
from kirana.flow.parameters import check_parameters
from kirana.interactions import Interactions
from kirana.key_texts import join_ids
from kirana.request import RequestContext
from kirana.schema import Array


class Parameters(Strict):
    """Parameters of the `neighbours` generator."""

    ids: Annotated[str, Field(description="The feature with the ids of a product's neighbours.")]
    weights: Annotated[str, Field(description="The feature with their weights.")]
    decay: Annotated[
        float,
        Field(
            gt=0.0,
            le=1.0,
            description="Each step back from the newest product multiplies the weights by this.",
        ),
    ] = 0.9


class Neighbours:
    """Products that are similar to the user's recent products. Newer products count more."""

    needs_seeds = True

    def __init__(self, parameters: Mapping[str, Any], catalog: Catalog) -> None:
        self._with = check_parameters(Parameters, parameters)
        group, ids, weights = list_features(catalog, self._with.ids, self._with.weights)
        if len(group.entity.keys) != 1:
            reason = f"'{group.entity.name}' has several keys, but an event has only one product id"
            raise CatalogError([Problem(reason, path="with.ids")])
        self._entity = group.entity.name
        self._ids = f"{group.short_name}.{ids.name}"
        self._weights = f"{group.short_name}.{weights.name}"

    async def generate(
        self,
        seeds: Interactions,
        context: Mapping[str, Any],
        limit: int,
        features: FeatureSource,
        request: RequestContext,
    ) -> Generated:
        """Return the best neighbours of the seeds.

        A product that occurs several times among the seeds counts once, as its newest event.
        """
        position_of = {product: i for i, product in reversed(list(enumerate(seeds.product_ids)))}
        if not position_of:
            return [], np.empty(0, dtype=np.float32)
        positions = sorted(position_of.values())
        products = [seeds.product_ids[i] for i in positions]
        query = FeatureQuery(self._entity, join_ids([products]), columns=(self._ids, self._weights))
        (rows,) = await features.read([query], request)
        ids, weights = best_neighbours(
            rows.columns[self._ids].values,
            rows.columns[self._weights].values,
            self._with.decay ** seed_ages(seeds.timestamps_ms[positions]),
            limit,
        )
        return list(map(str, ids.tolist())), weights


def seed_ages(timestamps: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """Return the age of each seed, its position among the seeds, as `float32[seeds]`.

    `timestamps` are newest first. Seeds with the same timestamp get the mean of their positions.
    """
    _, tie_of_seed, tie_sizes = np.unique(-timestamps, return_inverse=True, return_counts=True)
    first_positions = np.cumsum(tie_sizes) - tie_sizes
    return (first_positions + (tie_sizes - 1) / 2)[tie_of_seed].astype(np.float32)


def best_neighbours(
    ids: Array, weights: Array, factors: npt.NDArray[np.float32], limit: int
) -> tuple[Array, npt.NDArray[np.float32]]:
    """Return the `limit` ids with the highest totals, best first, and their totals.

    `ids` and `weights` have the shape `[seeds, k]`. The total of an id is the sum of
    `factors[seed] * weights[seed, i]` over all places where it occurs. Places with the weight 0 are
    left out: lists that are shorter than k are padded with zeros.
    """
    filled = weights != 0
    distinct, index = np.unique(ids[filled], return_inverse=True)
    totals = np.bincount(index, (weights * factors[:, None])[filled], minlength=len(distinct))
    best = np.lexsort((_scatter(distinct), -totals))[:limit]
    return distinct[best], totals[best].astype(np.float32)


def _scatter(ids: Array) -> npt.NDArray[np.uint32]:
    """Return a pseudo-random number per id, which orders ids with equal totals.

    Ordering by the ids themselves would always favour small ids.
    """
    return ids.astype(np.uint32) * np.uint32(2654435761)
