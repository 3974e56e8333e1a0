"""The rows that benchmarks read: products with 60 float32 features in one group or in three."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from kirana.codecs import Column
from kirana.features.service import FeatureService
from kirana.features.source import FeatureWrite
from kirana.request import RequestContext
from kirana.revision import Revision
from kirana.schema import Array

ROWS = 500
COLUMNS = 60
PRODUCTS = 20_000
THIRDS = 3
"""The number of groups of `three_groups_text`."""
NAMES = [f"f{n}" for n in range(COLUMNS)]
MATRIX = tuple(f"stats.{name}" for name in NAMES)


def catalog_text(versions: int) -> str:
    """Return a catalog to publish as schema version `versions` of its group.

    Each version after the first adds a feature.
    """
    features = [*NAMES, *(f"later{n}" for n in range(1, versions))]
    lines = "\n".join(f"  - {{name: {name}, dtype: float32}}" for name in features)
    return (
        "kind: entity\nname: product\nkeys: [{name: product_id}]\n---\n"
        f"kind: feature_group\nname: product.stats\nttl: 7d\nfeatures:\n{lines}\n"
    )


def three_groups_text() -> str:
    """Return YAML to append to `catalog_text(1)`: the same features in three groups of 20."""
    text = ""
    for n in range(THIRDS):
        features = NAMES[20 * n : 20 * n + 20]
        lines = "\n".join(f"  - {{name: {name}, dtype: float32}}" for name in features)
        text += f"---\nkind: feature_group\nname: product.third{n}\nttl: 7d\nfeatures:\n{lines}\n"
    return text


async def write_rows(
    service: FeatureService,
    revision: Revision,
    keys: list[str],
    names: list[str],
    values: Array,
    group: str = "product.stats",
) -> None:
    """Write one row per key, with the current time.

    Feature i of `names` gets column `i % width` of `values`.
    """
    width = values.shape[1]
    columns = {name: Column(values[:, i % width].copy()) for i, name in enumerate(names)}
    times = np.full(len(keys), int(time.time() * 1000), dtype=np.uint64)
    await service.write(FeatureWrite(group, keys, columns, times), RequestContext.begin(revision))


def copy_of(store: Path) -> Path:
    """Copy an LMDB folder for a floor, because LMDB can't open a folder twice in one process."""
    copy = store.with_name("copy")
    copy.mkdir()
    (copy / "data.mdb").write_bytes((store / "data.mdb").read_bytes())
    return copy
