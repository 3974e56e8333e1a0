"""`stored_list`: a ready list, kept as a feature of some entity (what is popular in a shop)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from kirana.catalog.objects import Strict
from kirana.catalog.snapshot import Catalog
from kirana.codecs import key_texts
from kirana.errors import CatalogError, InvalidInput, Problem
from kirana.features import FeatureQuery, FeatureSource
from kirana.flow.generators.base import Generated, list_features
from kirana.flow.parameters import check_parameters
from kirana.interactions import Interactions


class Parameters(Strict):
    ids: str
    weights: str
    keys: dict[str, str] = {}


class StoredList:
    """`keys` gives the list's entity a fixed key; what it leaves out comes from the context."""

    needs_seeds = False

    def __init__(self, parameters: Mapping[str, Any], catalog: Catalog) -> None:
        self._with = check_parameters(Parameters, parameters)
        group, ids, weights = list_features(catalog, self._with.ids, self._with.weights)
        self._entity = group.entity
        names = [key.name for key in self._entity.keys]
        for name in self._with.keys:
            if name not in names:
                message = f"entity '{self._entity.name}' has no key '{name}': its keys are {names}"
                raise CatalogError([Problem(message, path=f"with.keys.{name}")])
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
        keys: dict[str, object] = {}
        for key in self._entity.keys:
            value = self._with.keys.get(key.name, context.get(key.name))
            if not isinstance(value, str | int):
                raise InvalidInput(f"'{key.name}' is missing", field=f"context.{key.name}")
            keys[key.name] = value
        texts = key_texts(self._entity, keys, field="context")
        query = FeatureQuery(self._entity.name, texts, columns=(self._ids, self._weights))
        (rows,) = await features.read([query], revision)
        ids, weights = rows.columns[self._ids].values[0], rows.columns[self._weights].values[0]
        best = np.argsort(-weights, kind="stable")[:limit]
        best = best[weights[best] != 0]
        return list(map(str, ids[best].tolist())), weights[best].astype(np.float32)
