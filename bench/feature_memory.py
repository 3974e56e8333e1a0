"""What the in-process cache takes: a process that fills one, and looks at its own size."""

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
"""Room for all of the rows, and for few more."""


def main() -> None:
    """Print the bytes that the cache has added to the process / those of raw keys and values."""
    features = tuple(Feature(f"f{at}", "float32") for at in range(COLUMNS))
    version = SchemaVersion("product.stats", 1, features)
    group = FeatureGroup("product.stats", Entity("product", (Key("id"),)), 0, "packed", (version,))
    columns = {each.name: Column(np.zeros(1_000, dtype=np.float32)) for each in features}
    values = Packed().encode(group, version, columns, np.zeros(1_000, dtype=np.uint64))
    cache = FeatureCache(CACHE_BYTES, 3_600)
    cache.fill(group, ["first"], values[:1])
    raw = 0
    before = _resident()
    for at in range(0, ROWS, 1_000):
        # texts of their own, as requests bring them
        keys = [str(10_000_000 + at + each) for each in range(1_000)]
        cache.fill(group, keys, values)
        raw += sum(len(f"f:product.stats:{key}") for key in keys) + sum(map(len, values))
    print((_resident() - before) / raw)


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4_096


if __name__ == "__main__":
    main()
