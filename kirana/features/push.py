"""Bulk loads: Parquet files straight into the store, also while a cluster serves from it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

from kirana.catalog.snapshot import Catalog
from kirana.clock import MAX_FUTURE_MS
from kirana.codecs import CODECS
from kirana.errors import Unknown
from kirana.features.fetch import store_keys
from kirana.features.parquet import ParquetFeatures, Report, files_of
from kirana.loop import made_ahead
from kirana.stores import FeatureStore
from kirana.stores.base import RowBlock

Encoded = RowBlock | tuple[list[bytes], list[bytes]]
"""A block, or keys and values, where the codec makes an object a row."""


@dataclass(slots=True)
class Pushed:
    """`stale` rows were older than what was there, and left it alone."""

    rows: int = 0
    written: int = 0

    @property
    def stale(self) -> int:
        return self.rows - self.written


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
                error.field = str(path)
                raise
            version = found.version(schema_version) if schema_version else found.current
            self._files.append((name, ParquetFeatures(path, found, version)))
        self._now_ms = int(time.time() * 1000)

    @property
    def rows(self) -> int:
        return sum(file.rows for _, file in self._files)

    def check(self, report: Report) -> None:
        """Read all rows of all files; `report` is told how many were read since the last time."""
        for _, file in self._files:
            file.check(self._now_ms, self._now_ms + MAX_FUTURE_MS, report)

    async def write(
        self, store: FeatureStore, report: Report, *, guarded: bool = True
    ) -> dict[str, Pushed]:
        """Write all rows; return what became of each group's.

        Where not `guarded`, rows may replace newer ones: for a group that nobody writes to yet.
        """
        done: dict[str, Pushed] = {}
        for name, file in self._files:
            codec = CODECS[self._catalog.groups[name].codec]
            pushed = done.setdefault(name, Pushed())
            async with aclosing(made_ahead(self._encoded(name, file))) as batches:
                async for rows, encoded in batches:
                    if isinstance(encoded, RowBlock):
                        written = await store.load(encoded, codec, guarded=guarded)
                    else:
                        written = await store.put(*encoded, codec)
                    pushed.written += written
                    pushed.rows += rows
                    report(rows)
        return done

    def _encoded(self, name: str, file: ParquetFeatures) -> Iterator[tuple[int, Encoded]]:
        """Yield batch by batch how many rows it has, and these as the store takes them."""
        for batch in file.batches(self._now_ms):
            block = file.block(batch)
            if block is not None:
                yield len(batch.keys), block
            else:
                yield len(batch.keys), (store_keys(name, batch.key_texts), file.encode(batch))
