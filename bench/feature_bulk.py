"""Bulk loads into Redis compared with redis-benchmark, and the memory of Redis per entity."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bench.figures import Figure
from bench.floors.raw_redis import guard_rate, set_rate
from bench.servers import flush, used_memory
from kirana.catalog.directory import DirectoryCatalog
from kirana.codecs import CODECS
from kirana.ingest.push import Push
from kirana.ingest.targets import StoreTarget
from kirana.serving.checks import catalog_checks
from kirana.stores import RowKeys, open_feature_store

ENTITIES = 200_000
BENCHMARKED = 200_000
ROUNDS = 5
COLUMNS = 60


async def measure_bulk(address: str, catalog_text: str) -> tuple[dict[str, Figure], float]:
    """Return the figures, and the bytes of memory that Redis takes per entity."""
    with tempfile.TemporaryDirectory(prefix="kb-") as temporary:
        folder = Path(temporary)
        (folder / "catalog.yaml").write_text(catalog_text)
        source = DirectoryCatalog(folder, catalog_checks())
        catalog = source.load(source.publish().revision)
        file = folder / "product.stats.parquet"
        _write_rows(file)
        store = open_feature_store(f"redis://{address}")

        async def push(*, guarded: bool) -> float:
            flush(address)
            job = Push([file], catalog)
            start = time.perf_counter()
            await job.write(StoreTarget(store, guarded=guarded), lambda rows: None)
            return ENTITIES / (time.perf_counter() - start)

        flush(address)
        empty = used_memory(address)
        await push(guarded=False)
        entity_bytes = (used_memory(address) - empty) / ENTITIES
        (stored_rows,) = await store.read([RowKeys("product.stats", ["7"])])
        (value,) = stored_rows.values
        assert value is not None
        assert CODECS["packed"].expiry_s(value)
        size = len(value)
        rounds_plain, rounds_guarded = [], []
        for _ in range(ROUNDS):
            kirana = await push(guarded=False)
            flush(address)
            rounds_plain.append((kirana, set_rate(address, size, BENCHMARKED)))
            kirana = await push(guarded=True)
            flush(address)
            rounds_guarded.append((kirana, guard_rate(address, _printable(size), BENCHMARKED)))
        await store.close()
        flush(address)
    figures = {
        "bulk_redis_vs_redis_benchmark": Figure.of_rates(rounds_plain),
        "guarded_redis_vs_redis_benchmark": Figure.of_rates(rounds_guarded),
    }
    return figures, entity_bytes


def _printable(size: int) -> bytes:
    """Return a value of `size` bytes that can be an argument of a command.

    The first bytes are a header from which Kirana's script can read the event time.
    """
    return (b"\x01" + b"!" * 23).ljust(size, b"x")


def _write_rows(file: Path) -> None:
    rng = np.random.default_rng(0)
    columns: dict[str, object] = {"product_id": [str(n) for n in range(ENTITIES)]}
    for n in range(COLUMNS):
        columns[f"f{n}"] = rng.random(ENTITIES, dtype=np.float32)
    pq.write_table(pa.table(columns), file)
