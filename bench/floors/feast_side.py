"""Feast's online store on Redis, read as its users read it; runs under Feast's own Python.

`feast_side.py HOST:PORT DATABASE FOLDER ROWS.npz` writes the rows and prints `ready`. Each line
`N SECONDS` of stdin is then answered by a line, rows a second: N at a time, to a float32 matrix.
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
NAMES = [f"f{at}" for at in range(COLUMNS)]
VIEW = "stats"
REFERENCES = [f"{VIEW}:{name}" for name in NAMES]
TTL = timedelta(days=7)
KEY_TTL = TTL + timedelta(days=1)
ROWS_PER_WRITE = 2_000
BATCHES = 16


class FeastSide:
    """One feature view of 60 float32 in a Feast repository, its rows in Redis."""

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
        # nothing is read from this file, and it need not exist
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
        """Ten times faster from the protobuf than by `to_df`, `to_dict` or `to_arrow`.

        A value that is missing would be 0.0 here; the reply has its features in any order.
        """
        entities = {"product_id": ids}
        reply = self._store.get_online_features(features=REFERENCES, entity_rows=entities).proto
        place = {name: at for at, name in enumerate(reply.metadata.feature_names.val)}
        vectors = reply.results
        columns = [[value.float_val for value in vectors[place[name]].values] for name in NAMES]
        return np.ascontiguousarray(np.array(columns, dtype=np.float32).T)

    def rows_per_second(self, rows: int, seconds: float) -> float:
        """Reads random batches in turn for so long, after one that is checked."""
        generator = np.random.default_rng(rows)
        drawn = [generator.choice(len(self._ids), rows, replace=False) for _ in range(BATCHES)]
        batches = [[self._ids[at] for at in batch] for batch in drawn]
        if not np.array_equal(self.read(batches[0]), self._values[drawn[0]]):
            raise SystemExit("error: Feast read other values than were written")
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
    # a full collection over all that Feast has imported would take as long as a read of 500 rows
    gc.freeze()
    print("ready", flush=True)
    for line in sys.stdin:
        count, seconds = line.split()
        print(side.rows_per_second(int(count), float(seconds)), flush=True)


if __name__ == "__main__":
    main()
