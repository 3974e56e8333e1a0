"""Bulk loads: Parquet files straight into the store, also while a cluster serves from it."""

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
from kirana.ingest.parquet import ParquetFeatures, files_of
from kirana.loop import made_ahead
from kirana.stores import FeatureStore

Report = Callable[[int], None]


@dataclass(slots=True)
class Pushed:
    """`stale` rows were older than what was there, and left it alone.

    `expired` ones were past the TTL of their group as they came: they are never read.
    """

    rows: int = 0
    written: int = 0
    expired: int = 0

    @property
    def stale(self) -> int:
        return self.rows - self.written - self.expired


class Push:
    """Files are opened and their columns checked at once; rows when `check` and `write` read them.

    Raises `InvalidInput` or `Unknown` naming the file and column.
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
                found = catalog.group(name)
            except Unknown as error:
                error.message = f"{path}: {error.message} (--group names one)"
                error.path = (str(path),)
                raise
            version = found.version(schema_version) if schema_version else found.current
            self._files.append((name, ParquetFeatures(path, found, version)))
        self._now_ms = int(time.time() * 1000)

    @property
    def rows(self) -> int:
        return sum(file.rows for _, file in self._files)

    async def check(self, report: Report) -> None:
        """Read all rows of all files; `report` is told how many were read since the last time."""
        latest_ms = self._now_ms + MAX_FUTURE_MS
        rows = chain.from_iterable(f.check(self._now_ms, latest_ms) for _, f in self._files)
        async with aclosing(made_ahead(rows)) as ahead:
            async for count in ahead:
                report(count)

    async def write(
        self, store: FeatureStore, report: Report, *, guarded: bool = True
    ) -> dict[str, Pushed]:
        """Write all rows; return what became of each group's.

        Where not `guarded`, rows may replace newer ones: for a group that nobody writes to yet.
        """
        done: dict[str, Pushed] = {}
        for name, file in self._files:
            pushed = done.setdefault(name, Pushed())
            blocks = map(file.block, file.batches(self._now_ms))
            async with aclosing(made_ahead(blocks)) as ahead:
                async for block in ahead:
                    expired = block.expired(self._now_ms / 1000)
                    if expired.any():
                        # first, for they are older than all that live
                        gone = block.take(np.flatnonzero(expired))
                        await store.load(gone, guarded=guarded)
                        pushed.expired += len(gone)
                        lives = block.take(np.flatnonzero(~expired))
                    else:
                        lives = block
                    loaded = await store.load(lives, guarded=guarded)
                    pushed.written += loaded.stored + loaded.unknown
                    pushed.rows += len(block)
                    report(len(block))
        return done
