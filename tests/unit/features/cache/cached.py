"""Groups whose rows are cached each in its way, and what the cache has of them."""

from __future__ import annotations

from collections.abc import Sequence

from kirana.codecs.packed.layout import row_bytes
from kirana.features.cache.feature_cache import FeatureCache
from kirana.schema import Feature, FeatureGroup
from tests.unit.features.counted_store import group_of

FRESH_S = 10.0
NUMBERS = [Feature("clicks", "int64"), Feature("ctr", "float32")]
GROWN = [*NUMBERS, Feature("orders", "int32")]
TITLE = Feature("title", "string")

STATS = group_of("product.stats", NUMBERS)
ATTRS = group_of("product.attrs", [TITLE])
TEXT = group_of("product.text", NUMBERS, codec="text")
SUMMED = group_of("product.summed", NUMBERS, checksum=True)
GROUPS = (STATS, group_of("product.vector", [Feature("v", "float32", (59,))]), ATTRS, TEXT, SUMMED)
ROW = row_bytes(STATS)

SMALLEST_SKETCH = 1_024
"""Bytes of a group's counts, however few rows it may have."""


def read(cache: FeatureCache, group: FeatureGroup, keys: Sequence[str]) -> dict[str, bytes | None]:
    """What the cache has, by key; every place is in one part of the answer, and in one only."""
    found = cache.look_up(group, keys)
    places = [*found.in_table.tolist(), *found.values, *found.missing]
    assert sorted(places) == list(range(len(keys)))
    assert len(found.table) == len(found.in_table)
    rows = dict(zip(found.in_table.tolist(), map(bytes, found.table), strict=True))
    return {keys[at]: value for at, value in {**found.values, **rows}.items()}
