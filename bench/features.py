"""Feature reads from LMDB: 500 keys x 60 float32, one group."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np

from bench.figures import Report
from bench.floors.lmdb_loop import LmdbLoop
from bench.paired import compare
from kirana.catalog.directory import DirectoryCatalog
from kirana.codecs import Column
from kirana.features import FeatureQuery
from kirana.features.fetch import store_keys
from kirana.features.service import FeatureService
from kirana.features.source import FeatureWrite
from kirana.schema import Array
from kirana.stores import open_feature_store

ROWS = 500
COLUMNS = 60
NAMES = [f"f{at}" for at in range(COLUMNS)]


def catalog_text(versions: int) -> str:
    """The group as of its n-th schema version: each has one feature more than the last."""
    features = [*NAMES, *(f"later{at}" for at in range(1, versions))]
    lines = "\n".join(f"  - {{name: {name}, dtype: float32}}" for name in features)
    return (
        "kind: entity\nname: product\nkeys: [{name: product_id}]\n---\n"
        f"kind: feature_group\nname: product.stats\nttl: 7d\nfeatures:\n{lines}\n"
    )


async def measure() -> Report:
    """`lmdb_vs_get_loop`: the whole read path / `txn.get` in a loop, which decodes nothing.

    `mixed_versions_vs_uniform`: rows of three schema versions mixed / of one.
    """
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        source = DirectoryCatalog(folder)
        service = FeatureService(open_feature_store(f"lmdb://{folder}/store"), source)
        uniform = [f"u{at}" for at in range(ROWS)]
        mixed = [f"m{at}" for at in range(ROWS)]
        values = np.random.default_rng(0).random((ROWS, COLUMNS), dtype=np.float32)
        for version in (1, 2, 3):
            (folder / "catalog.yaml").write_text(catalog_text(version))
            revision = source.publish().revision
            names = [*NAMES, *(f"later{at}" for at in range(1, version))]
            rows = range(version - 1, ROWS, 3)
            await write_rows(
                service, revision, [mixed[at] for at in rows], names, values[list(rows)]
            )
            if version == 1:
                await write_rows(service, revision, uniform, names, values)
        features = tuple(f"stats.{name}" for name in NAMES)
        one = [FeatureQuery("product", uniform, matrix=features)]
        three = [FeatureQuery("product", mixed, matrix=features)]
        stored = store_keys("product.stats", uniform)
        loop = LmdbLoop(copy_of(folder / "store"), stored, COLUMNS)

        async def kirana() -> object:
            return await service.read(one, revision)

        async def kirana_mixed() -> object:
            return await service.read(three, revision)

        async def bare() -> object:
            return loop.get()

        result = {
            "lmdb_vs_get_loop": await compare(kirana, bare),
            "mixed_versions_vs_uniform": await compare(kirana_mixed, kirana),
        }
        await service.close()
        return Report(result)


async def write_rows(
    service: FeatureService, revision: int, keys: list[str], names: list[str], values: Array
) -> None:
    columns = {name: Column(values[:, at % COLUMNS].copy()) for at, name in enumerate(names)}
    times = np.full(len(keys), int(time.time() * 1000), dtype=np.uint64)
    await service.write(FeatureWrite("product.stats", keys, columns, times), revision)


def copy_of(store: Path) -> Path:
    """LMDB refuses to open a folder twice in one process, so the floor reads a copy."""
    copy = store.with_name("copy")
    copy.mkdir()
    (copy / "data.mdb").write_bytes((store / "data.mdb").read_bytes())
    return copy
