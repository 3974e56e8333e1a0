"""`neighbours`: what is near to a person's recent products, the newest counting most.

Each product has a stored list of neighbours with weights; a candidate's weight is the sum over
the seeds of decay^age * weight, where age counts products back from the newest. Products of one
timestamp have one age, the middle of their positions: what stands first among them means nothing.
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
    ids: Annotated[str, Field(description="The feature with the ids of a product's neighbours.")]
    weights: Annotated[str, Field(description="The feature with their weights.")]
    decay: Annotated[
        float, Field(gt=0.0, le=1.0, description="How much less each older product counts.")
    ] = 0.9


class Neighbours:
    """Gives products that are similar to a person's recent ones. The newest ones count most."""

    needs_seeds = True

    def __init__(self, parameters: Mapping[str, Any], catalog: Catalog) -> None:
        self._with = check_parameters(Parameters, parameters)
        group, ids, weights = list_features(catalog, self._with.ids, self._with.weights)
        if len(group.entity.keys) != 1:
            reason = f"'{group.entity.name}' has several keys, and a history has products alone"
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
        newest = {product: at for at, product in reversed(list(enumerate(seeds.product_ids)))}
        if not newest:
            return [], np.empty(0, dtype=np.float32)
        positions = sorted(newest.values())
        products = [seeds.product_ids[at] for at in positions]
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
    """Return the age of each seed, newest first: its position, the mean of them where times tie."""
    _, group, sizes = np.unique(-timestamps, return_inverse=True, return_counts=True)
    firsts = np.cumsum(sizes) - sizes
    return (firsts + (sizes - 1) / 2)[group].astype(np.float32)


def best_neighbours(
    ids: Array, weights: Array, factors: npt.NDArray[np.float32], limit: int
) -> tuple[Array, npt.NDArray[np.float32]]:
    """Sum `factors[seed] * weights[seed, k]` for each distinct id; return the best, best first.

    `ids` and `weights` have the shape (seeds, k); a weight of 0 fills up a shorter list.
    """
    filled = weights != 0
    distinct, position = np.unique(ids[filled], return_inverse=True)
    totals = np.bincount(position, (weights * factors[:, None])[filled], minlength=len(distinct))
    best = np.lexsort((_scatter(distinct), -totals))[:limit]
    return distinct[best], totals[best].astype(np.float32)


def _scatter(ids: Array) -> npt.NDArray[np.uint32]:
    """Ids often carry an order (oldest first), which must not decide between equal weights."""
    return ids.astype(np.uint32) * np.uint32(2654435761)
