"""A point-in-time join of a million points with the archive, beside Feast's own."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bench.feast.environment import feast_python
from bench.figures import Breakdown, Figure
from kirana.archive.folder import ArchiveFolder, file_name
from kirana.archive.tables import ArchivedRows, tables_of
from kirana.catalog.snapshot import Catalog
from kirana.codecs import Column
from kirana.history import history

GROUP = "product.narrow"
KEYS = 100_000
DAYS = 10
POINTS = 1_000_000
ROUNDS = 3
BEGIN_MS = 20_000 * 86_400_000
DAY_MS = 86_400_000
FEAST = Path(__file__).parent / "floors" / "feast_history.py"


async def measure_history(
    catalog: Catalog, folder: Path
) -> tuple[dict[str, Figure], list[Breakdown]]:
    """Join points with rows of `KEYS` keys, one row of each key for each of `DAYS` days."""
    (folder / "archive").mkdir()
    archive = f"file://{folder}/archive"
    write_archive(catalog, archive)
    rng = np.random.default_rng(1)
    at = rng.integers(BEGIN_MS, BEGIN_MS + DAYS * DAY_MS, POINTS)
    points = pa.table(
        {
            "product_id": rng.integers(0, KEYS, POINTS).astype(str),
            "time": pa.array(at, pa.timestamp("ms", "UTC")),
        }
    )
    names = [f"{GROUP}.{feature.name}" for feature in catalog.group(GROUP).current.features]
    rates: list[float] = []
    known: list[float] = []
    for _ in range(ROUNDS):
        for as_known, found in ((False, rates), (True, known)):
            start = time.perf_counter()
            joined = history(catalog, archive, points, names, as_known=as_known)
            found.append(POINTS / (time.perf_counter() - start))
            assert len(joined) == POINTS
    pq.write_table(points, folder / "points.parquet")
    feast = feast_rate(folder)
    figures = {
        "history_rows_per_s": Figure.reported(rates),
        "history_as_known_rows_per_s": Figure.reported(known),
        "history_vs_feast": Figure.of_rates([(rate, feast) for rate in rates]),
    }
    return figures, []


def write_archive(catalog: Catalog, archive: str) -> None:
    group = catalog.group(GROUP)
    rng = np.random.default_rng(0)
    folder = ArchiveFolder(archive)
    keys = [str(n) for n in range(KEYS)]
    for day in range(DAYS):
        times = (BEGIN_MS + day * DAY_MS + rng.integers(0, DAY_MS, KEYS)).astype(np.uint64)
        columns = {
            feature.name: Column(rng.random(KEYS, dtype=np.float32))
            for feature in group.current.features
        }
        stored_ms = BEGIN_MS + (day + 1) * DAY_MS
        rows = ArchivedRows(group, group.current, keys, columns, times, stored_ms, "rows", 0, day)
        for file in tables_of([rows]):
            folder.write(file, file_name("rows", 0, day, day + 1, file.version))


def feast_rate(folder: Path) -> float:
    """Return how many points Feast joins per second, from the same files."""
    command = [str(feast_python()), str(FEAST), str(folder), GROUP]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return POINTS / float(done.stdout.split()[-1])
