"""The memory of the in-process cache, measured in a process that fills one."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from kirana.codecs import Column
from kirana.codecs.packed.codec import Packed
from kirana.features.cache.feature_cache import FeatureCache
from kirana.schema import Entity, Feature, FeatureGroup, Key, SchemaVersion

ROWS = 200_000
COLUMNS = 60
CACHE_BYTES = 100 << 20
"""Enough for all rows, and little more."""


def main() -> None:
    """Print the bytes by which the process has grown / the bytes of the raw keys and values."""
    features = tuple(Feature(f"f{n}", "float32") for n in range(COLUMNS))
    version = SchemaVersion("product.stats", 1, features)
    group = FeatureGroup("product.stats", Entity("product", (Key("id"),)), 0, "packed", (version,))
    columns = {feature.name: Column(np.zeros(1_000, dtype=np.float32)) for feature in features}
    values = Packed().encode(group, version, columns, np.zeros(1_000, dtype=np.uint64))
    cache = FeatureCache(CACHE_BYTES, 3_600)
    cache.fill(group, ["first"], values[:1])
    raw = 0
    before = _resident()
    for start in range(0, ROWS, 1_000):
        # New string objects for each batch, as in requests.
        keys = [str(10_000_000 + start + n) for n in range(1_000)]
        cache.fill(group, keys, values)
        raw += sum(len(f"f:product.stats:{key}") for key in keys) + sum(map(len, values))
    print((_resident() - before) / raw)


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4_096


if __name__ == "__main__":
    main()
