"""The rows that benchmarks read: products with 60 float32 in one group, or in three."""

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
THREE = 3
NAMES = [f"f{at}" for at in range(COLUMNS)]
MATRIX = tuple(f"stats.{name}" for name in NAMES)


def catalog_text(versions: int) -> str:
    """The group as of its n-th schema version: each has one feature more than the last."""
    features = [*NAMES, *(f"later{at}" for at in range(1, versions))]
    lines = "\n".join(f"  - {{name: {name}, dtype: float32}}" for name in features)
    return (
        "kind: entity\nname: product\nkeys: [{name: product_id}]\n---\n"
        f"kind: feature_group\nname: product.stats\nttl: 7d\nfeatures:\n{lines}\n"
    )


def three_groups_text() -> str:
    """The same features again, in three groups of 20."""
    text = ""
    for at in range(THREE):
        features = NAMES[20 * at : 20 * at + 20]
        lines = "\n".join(f"  - {{name: {name}, dtype: float32}}" for name in features)
        text += f"---\nkind: feature_group\nname: product.third{at}\nttl: 7d\nfeatures:\n{lines}\n"
    return text


async def write_rows(
    service: FeatureService,
    revision: Revision,
    keys: list[str],
    names: list[str],
    values: Array,
    group: str = "product.stats",
) -> None:
    width = values.shape[1]
    columns = {name: Column(values[:, at % width].copy()) for at, name in enumerate(names)}
    times = np.full(len(keys), int(time.time() * 1000), dtype=np.uint64)
    await service.write(FeatureWrite(group, keys, columns, times), RequestContext.begin(revision))


def copy_of(store: Path) -> Path:
    """LMDB refuses to open a folder twice in one process, so the floor reads a copy."""
    copy = store.with_name("copy")
    copy.mkdir()
    (copy / "data.mdb").write_bytes((store / "data.mdb").read_bytes())
    return copy
