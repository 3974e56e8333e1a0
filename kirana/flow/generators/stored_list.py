"""The `stored_list` generator: products in a list that is stored as features of an entity."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from kirana.catalog.objects import Strict
from kirana.catalog.snapshot import Catalog
from kirana.errors import CatalogError, InvalidInput, Problem
from kirana.features import FeatureQuery, FeatureSource
from kirana.flow.generators.base import Generated, list_features
from kirana.flow.parameters import check_parameters
from kirana.interactions import Interactions
from kirana.key_texts import check_key_names, id_text, join_ids
from kirana.request import RequestContext


class Parameters(Strict):
    """Parameters of the `stored_list` generator."""

    ids: Annotated[str, Field(description="The feature with the ids of the list.")]
    weights: Annotated[str, Field(description="The feature with their weights.")]
    keys: Annotated[
        dict[str, str],
        Field(description="Fixed keys of the entity. The others come from the context."),
    ] = {}


class StoredList:
    """Products in a list that is stored as features of an entity, such as a shop's most popular."""

    needs_seeds = False

    def __init__(self, parameters: Mapping[str, Any], catalog: Catalog) -> None:
        self._with = check_parameters(Parameters, parameters)
        group, ids, weights = list_features(catalog, self._with.ids, self._with.weights)
        self._entity = group.entity
        fixed_keys = self._with.keys
        try:
            check_key_names(self._entity, fixed_keys, field="with.keys")
            for key in self._entity.keys:
                if key.name in fixed_keys:
                    id_text(key, fixed_keys[key.name], field=f"with.keys.{key.name}")
        except InvalidInput as error:
            raise CatalogError([Problem(error.message, path=str(error.field))]) from None
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
        """Return the ids with the highest stored weights. Ids with the weight 0 are left out."""
        texts = [self._key_text(context)]
        query = FeatureQuery(self._entity.name, texts, columns=(self._ids, self._weights))
        (rows,) = await features.read([query], request)
        ids = rows.columns[self._ids].values[0]
        weights = rows.columns[self._weights].values[0].astype(np.float32)
        best = np.argsort(-weights, kind="stable")[:limit]
        best = best[weights[best] != 0]
        return list(map(str, ids[best].tolist())), weights[best]

    def _key_text(self, context: Mapping[str, Any]) -> str:
        """Return the key text of the list. Keys that are not fixed come from the context.

        Raise `InvalidInput` with the field `context.<key>` if a key is missing or invalid, and
        `TooLarge` if it is too long.
        """
        columns = []
        for key in self._entity.keys:
            field = f"context.{key.name}"
            value = self._with.keys.get(key.name, context.get(key.name))
            if value is None:
                raise InvalidInput(f"'{key.name}' is missing in the context", field=field)
            columns.append([id_text(key, value, field=field)])
        return join_ids(columns)[0]
