"""Bulk loads of Parquet files into a store, which a cluster may serve from meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np

from kirana.catalog.snapshot import Catalog
from kirana.clock import MAX_FUTURE_MS
from kirana.errors import Unknown
from kirana.ingest.files import files_of
from kirana.ingest.parquet import ParquetFeatures
from kirana.loop import prefetched
from kirana.stores import FeatureStore

Report = Callable[[int], None]
"""A function that is called with the number of rows that were processed since its last call."""


@dataclass(slots=True)
class Pushed:
    """The numbers of rows that were pushed to one group.

    `rows` is the number of all rows. `written` rows were stored, as far as the store can say.
    `expired` rows were past the TTL of their group when they were pushed. They replace older rows,
    but reads return defaults for them.
    """

    rows: int = 0
    written: int = 0
    expired: int = 0

    @property
    def stale(self) -> int:
        """The number of rows that were not stored, because the stored rows are newer."""
        return self.rows - self.written - self.expired


class Push:
    """A bulk load of Parquet files.

    The constructor opens the files and checks their columns. `check` and `write` read the rows.
    They all raise `InvalidInput` if a file is wrong, with the file and, if known, the column in the
    message. The constructor also raises `InvalidInput` if a path does not exist or a group lacks
    `schema_version`, and `Unknown` for a file whose group is not in the catalog.

    All files are read as `schema_version`. Without it, each file is read as the current version of
    its group.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        catalog: Catalog,
        *,
        group: str | None = None,
        schema_version: int | None = None,
    ) -> None:
        self._files: list[tuple[str, ParquetFeatures]] = []
        self._catalog = catalog
        for name, path in files_of(paths, group, catalog.groups):
            try:
                feature_group = catalog.group(name)
            except Unknown as error:
                error.message = f"{path}: {error.message} (or name the group with --group)"
                error.path = (str(path),)
                raise
            version = (
                feature_group.version(schema_version) if schema_version else feature_group.current
            )
            self._files.append((name, ParquetFeatures(path, feature_group, version)))
        self._now_ms = int(time.time() * 1000)

    @property
    def rows(self) -> int:
        """The number of rows in all files."""
        return sum(file.rows for _, file in self._files)

    async def check(self, report: Report) -> None:
        """Check all rows of all files. `report` is called after each batch."""
        latest_ms = self._now_ms + MAX_FUTURE_MS
        row_counts = chain.from_iterable(
            file.check(self._now_ms, latest_ms) for _, file in self._files
        )
        async with aclosing(prefetched(row_counts)) as prefetched_counts:
            async for count in prefetched_counts:
                report(count)

    async def write(
        self, store: FeatureStore, report: Report, *, guarded: bool = True
    ) -> dict[str, Pushed]:
        """Write all rows; return the numbers of rows by the name of the group.

        If `guarded` is False, the store may replace newer rows by older ones. Use this only for
        groups that have no other writer yet. `report` is called after each batch. Raise
        `Unavailable` if not all rows could be written.
        """
        pushed_by_group: dict[str, Pushed] = {}
        for name, file in self._files:
            pushed = pushed_by_group.setdefault(name, Pushed())
            blocks = map(file.block, file.batches(self._now_ms))
            async with aclosing(prefetched(blocks)) as prefetched_blocks:
                async for block in prefetched_blocks:
                    expired = block.expired(self._now_ms / 1000)
                    if expired.any():
                        # If a key has several rows, the expired ones are the oldest. They must
                        # not replace the others, so they are written first.
                        expired_rows = block.select(np.flatnonzero(expired))
                        await store.load(expired_rows, guarded=guarded)
                        pushed.expired += len(expired_rows)
                        live_rows = block.select(np.flatnonzero(~expired))
                    else:
                        live_rows = block
                    loaded = await store.load(live_rows, guarded=guarded)
                    pushed.written += loaded.stored + loaded.unknown
                    pushed.rows += len(block)
                    report(len(block))
        return pushed_by_group
