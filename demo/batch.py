"""The nightly batch: writes the feature tables as Parquet files, and the models as ONNX files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from kirana.demo import jobs
from kirana.demo.dataset import Events, MovieLens
from kirana.demo.jobs import Table
from kirana.demo.rankers import Rankers, export_onnx


def write_features(data: MovieLens, past: Events, folder: Path) -> int:
    """Run all feature jobs on `past`, and write one file `<entity>.<group>.parquet` per table.

    Return the total number of rows.
    """
    tables = {
        "user.profile": jobs.user_profile(data),
        "user.activity": jobs.user_activity(data, past),
        "product.attrs": jobs.product_attrs(data, past),
        "product.stats": jobs.product_stats(data, past),
        "product.embedding": jobs.product_embedding(data, past),
        "genre.stats": jobs.genre_stats(data, past),
        "user_genre.affinity": jobs.user_genre_affinity(data, past),
        "shop.popular": jobs.shop_popular(data, past),
    }
    for name, table in jobs.product_neighbours(data, past).items():
        tables[f"product.{name}"] = table
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        pq.write_table(_arrow(table), folder / f"{name}.parquet")
    return sum(len(next(iter(table.values()))) for table in tables.values())


def _arrow(table: Table) -> pa.Table:
    """Return a table for Arrow. Matrices become columns of lists of fixed length."""
    columns = {}
    for name, values in table.items():
        if values.ndim == 1:
            columns[name] = pa.array(values)
        else:
            flat = pa.array(np.ascontiguousarray(values).reshape(-1))
            columns[name] = pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
    return pa.table(columns)


def write_models(rankers: Rankers, root: Path) -> None:
    """Write both rankers to `<root>/<model>/1/model.onnx`."""
    for model, name in ((rankers.watch, "watch"), (rankers.like, "like")):
        path = root / f"{name}_ranker" / "1" / "model.onnx"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(export_onnx(model, f"p_{name}", rankers.sample))
