"""Feature groups whose rows are cached in different ways, and a function to read the cache."""

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
"""Bytes of the frequency sketch of a group with few rows."""


def read(cache: FeatureCache, group: FeatureGroup, keys: Sequence[str]) -> dict[str, bytes | None]:
    """Return the cached rows by key, None for a key that is known to have no row.

    Assert that the answer has each position exactly once.
    """
    answer = cache.look_up(group, keys)
    positions = [*answer.table_positions.tolist(), *answer.values, *answer.missing]
    assert sorted(positions) == list(range(len(keys)))
    assert len(answer.table) == len(answer.table_positions)
    rows = dict(zip(answer.table_positions.tolist(), map(bytes, answer.table), strict=True))
    return {keys[position]: value for position, value in {**answer.values, **rows}.items()}
