"""Measure reads from Feast's online store in Redis. This runs in Feast's environment.

`feast_side.py HOST:PORT DATABASE FOLDER ROWS.npz` writes the rows and prints `ready`. For each line
`N SECONDS` of stdin it then reads batches of N rows into float32 matrices for that long, and prints
the rows read per second.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import time
from datetime import timedelta
from itertools import cycle
from pathlib import Path
from typing import Any

os.environ["FEAST_USAGE"] = "False"

import numpy as np
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
from feast.types import Float32, String  # type: ignore[import-not-found]

Matrix = np.ndarray[Any, np.dtype[np.float32]]

COLUMNS = 60
NAMES = [f"f{n}" for n in range(COLUMNS)]
VIEW = "stats"
REFERENCES = [f"{VIEW}:{name}" for name in NAMES]
TTL = timedelta(days=7)
KEY_TTL = TTL + timedelta(days=1)
ROWS_PER_WRITE = 2_000
BATCHES = 16


class FeastSide:
    """A Feast repository with one feature view of 60 float32 features, and its rows in Redis."""

    def __init__(
        self, address: str, database: int, folder: Path, ids: list[str], values: Matrix
    ) -> None:
        self._ids = ids
        self._values = values
        online_store = {
            "type": "redis",
            "connection_string": f"{address},db={database}",
            "key_ttl_seconds": int(KEY_TTL.total_seconds()),
        }
        self._store = FeatureStore(
            config=RepoConfig(
                project="bench",
                provider="local",
                registry={"registry_type": "file", "path": str(folder / "registry.db")},
                online_store=online_store,
                offline_store={"type": "file"},
                entity_key_serialization_version=3,
                repo_path=folder,
            )
        )
        product = Entity(name="product", join_keys=["product_id"], value_type=ValueType.STRING)
        features = [Field(name=name, dtype=Float32) for name in NAMES]
        # Feast never reads this file, so it need not exist.
        path = str(folder / "stats.parquet")
        view = FeatureView(
            name=VIEW,
            entities=[product],
            ttl=TTL,
            schema=[Field(name="product_id", dtype=String), *features],
            source=FileSource(path=path, timestamp_field="event_timestamp"),
        )
        self._store.apply([product, view])

    def write(self) -> None:
        for start in range(0, len(self._ids), ROWS_PER_WRITE):
            rows = slice(start, start + ROWS_PER_WRITE)
            frame = pd.DataFrame(self._values[rows], columns=NAMES)
            frame["product_id"] = self._ids[rows]
            frame["event_timestamp"] = pd.Timestamp.now(tz="UTC")
            self._store.write_to_online_store(VIEW, df=frame)

    def read(self, ids: list[str]) -> Matrix:
        """Return the rows of `ids` as float32[ids, features]. A missing value is 0.0.

        Reading the protobuf of a reply is ten times faster than `to_df`, `to_dict` or `to_arrow`.
        The reply has the features in any order.
        """
        entities = {"product_id": ids}
        reply = self._store.get_online_features(features=REFERENCES, entity_rows=entities).proto
        positions = {
            name: position for position, name in enumerate(reply.metadata.feature_names.val)
        }
        vectors = reply.results
        columns = [[value.float_val for value in vectors[positions[name]].values] for name in NAMES]
        return np.ascontiguousarray(np.array(columns, dtype=np.float32).T)

    def rows_per_second(self, rows: int, seconds: float) -> float:
        """Check one random batch, read batches for `seconds`, and return the rows per second."""
        generator = np.random.default_rng(rows)
        drawn = [generator.choice(len(self._ids), rows, replace=False) for _ in range(BATCHES)]
        batches = [[self._ids[i] for i in batch] for batch in drawn]
        if not np.array_equal(self.read(batches[0]), self._values[drawn[0]]):
            raise SystemExit("error: the values that Feast read differ from the written ones")
        count = 0
        start = time.perf_counter()
        for batch in cycle(batches):
            self.read(batch)
            count += rows
            elapsed = time.perf_counter() - start
            if elapsed >= seconds:
                break
        return count / elapsed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address", metavar="HOST:PORT")
    parser.add_argument("database", type=int)
    parser.add_argument("folder", type=Path)
    parser.add_argument("rows", type=Path, help="an .npz with `ids` and `values`")
    arguments = parser.parse_args()
    with np.load(arguments.rows) as rows:
        ids, values = rows["ids"].tolist(), rows["values"]
    side = FeastSide(arguments.address, arguments.database, arguments.folder, ids, values)
    side.write()
    # A full garbage collection would also walk the objects of Feast's imports.
    gc.freeze()
    print("ready", flush=True)
    for line in sys.stdin:
        count, seconds = line.split()
        print(side.rows_per_second(int(count), float(seconds)), flush=True)


if __name__ == "__main__":
    main()
