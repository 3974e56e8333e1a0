"""Measure Feast's point-in-time join from Parquet files. This runs in Feast's environment.

`feast_history.py FOLDER GROUP` joins `FOLDER/points.parquet` with the archive in `FOLDER/archive`,
and prints how many seconds that took.
"""

from __future__ import annotations

import os
import sys
import time
from datetime import timedelta
from pathlib import Path

os.environ["FEAST_USAGE"] = "False"

import pandas as pd  # type: ignore[import-untyped]
from feast import (  # type: ignore[import-not-found]
    Entity,
    FeatureStore,
    FeatureView,
    Field,
    FileSource,
    RepoConfig,
    ValueType,
)
from feast.types import Float32  # type: ignore[import-not-found]

NAMES = [f"f{n}" for n in range(10)]


def main() -> None:
    folder, group = Path(sys.argv[1]), sys.argv[2]
    rows = pd.concat(pd.read_parquet(file) for file in sorted(folder.rglob(f"{group}/*/*.parquet")))
    file = folder / "feast.parquet"
    rows[["product_id", "event_time", *NAMES]].to_parquet(file)
    store = FeatureStore(
        config=RepoConfig(
            project="bench",
            provider="local",
            registry=str(folder / "feast.db"),
            offline_store={"type": "file"},
            entity_key_serialization_version=3,
        )
    )
    product = Entity(name="product", join_keys=["product_id"], value_type=ValueType.STRING)
    view = FeatureView(
        name="narrow",
        entities=[product],
        schema=[Field(name=name, dtype=Float32) for name in NAMES],
        source=FileSource(path=str(file), timestamp_field="event_time"),
        ttl=timedelta(days=365),
    )
    store.apply([product, view])
    points = pd.read_parquet(folder / "points.parquet").rename(columns={"time": "event_timestamp"})
    start = time.perf_counter()
    job = store.get_historical_features(points, [f"narrow:{name}" for name in NAMES])
    joined = job.to_df()
    seconds = time.perf_counter() - start
    # Feast leaves out points that have no row before them.
    assert len(points) / 2 < len(joined) <= len(points)
    print(seconds)


main()
