"""`neighbours`: what is near to a person's recent products, the newest counting most.

Each product has a stored list of neighbours with weights; a candidate's weight is the sum over
the seeds of decay^age * weight, where age counts distinct products back from the newest.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from kirana.catalog.objects import Strict
from kirana.catalog.snapshot import Catalog
from kirana.features import FeatureQuery, FeatureSource
from kirana.flow.generators.base import Generated, list_features
from kirana.flow.parameters import check_parameters
from kirana.interactions import Interactions
from kirana.schema import Array


class Parameters(Strict):
    ids: str
    weights: str
    decay: Annotated[float, Field(gt=0.0, le=1.0)] = 0.9


class Neighbours:
    needs_seeds = True

    def __init__(self, parameters: Mapping[str, Any], catalog: Catalog) -> None:
        self._with = check_parameters(Parameters, parameters)
        group, ids, weights = list_features(catalog, self._with.ids, self._with.weights)
        self._entity = group.entity.name
        self._ids = f"{group.short_name}.{ids.name}"
        self._weights = f"{group.short_name}.{weights.name}"

    async def generate(
        self,
        seeds: Interactions,
        context: Mapping[str, Any],
        limit: int,
        features: FeatureSource,
        revision: int,
    ) -> Generated:
        products = list(dict.fromkeys(seeds.product_ids))
        if not products:
            return [], np.empty(0, dtype=np.float32)
        query = FeatureQuery(self._entity, products, columns=(self._ids, self._weights))
        (rows,) = await features.read([query], revision)
        ids = rows.columns[self._ids].values
        decays = self._with.decay ** np.arange(len(products), dtype=np.float32)
        weights = rows.columns[self._weights].values * decays[:, None]
        # a list shorter than its vector ends in weights of 0
        filled = weights != 0
        distinct, place = np.unique(ids[filled], return_inverse=True)
        totals = np.bincount(place, weights[filled], minlength=len(distinct))
        best = np.lexsort((_scatter(distinct), -totals))[:limit]
        return list(map(str, distinct[best].tolist())), totals[best].astype(np.float32)


def _scatter(ids: Array) -> npt.NDArray[np.uint32]:
    """Ids often carry an order (oldest first), which must not decide between equal weights."""
    return ids.astype(np.uint32) * np.uint32(2654435761)
