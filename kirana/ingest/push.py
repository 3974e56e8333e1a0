"""Bulk loads of files into a store, which a cluster may serve from meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import aclosing
from pathlib import Path

import numpy as np

from kirana.catalog.snapshot import Catalog
from kirana.errors import Unknown
from kirana.ingest.feature_file import FeatureFile
from kirana.ingest.files import SourceFile, source_files
from kirana.ingest.journal import Journal, Pushed
from kirana.ingest.problems import Problem, error_of
from kirana.ingest.rejects import Rejects
from kirana.ingest.source import Source
from kirana.loop import prefetched
from kirana.schema import FeatureGroup, SchemaVersion
from kirana.stores import FeatureStore, RowBlock

Report = Callable[[int], None]
"""A function that is called with the number of rows that were processed since its last call."""


class Push:
    """A bulk load of files: Parquet, CSV and Arrow, on this machine or in object storage.

    The constructor opens the files and checks their columns. `check` and `write` read the rows.
    They all raise `InvalidInput` if a file is wrong, with all problems that were found, and
    `Unavailable` if a file can't be read. The constructor also raises `InvalidInput` if a path does
    not exist or a group lacks the schema version, and `Unknown` for a file whose group is not in
    the catalog. `source` says how the files are read; its own files are ignored.
    """

    def __init__(
        self,
        paths: Sequence[str | Path],
        catalog: Catalog,
        source: Source | None = None,
    ) -> None:
        self._files: list[FeatureFile] = []
        self._source = source = source or Source()
        problems: list[Problem] = []
        for found in source_files(list(map(str, paths)), source.group, catalog.groups):
            feature_group, version = _schema_of(found, catalog, source.schema_version)
            file = FeatureFile(found, feature_group, version, source)
            self._files.append(file)
            problems += file.problems
        if problems:
            raise error_of(problems, len(problems))
        self._rows = [file.rows for file in self._files]

    @property
    def rows(self) -> int | None:
        """The number of rows in all files. Before `check`, None if a file does not say it."""
        known = [rows for rows in self._rows if rows is not None]
        return sum(known) if len(known) == len(self._rows) else None

    @property
    def identity(self) -> list[object]:
        """What is pushed: the files with their sizes and times, and how they are read."""
        source = self._source
        columns = [sorted(source.renames.items()), source.ignore_extra, source.event_time]
        return [[file.identity for file in self._files], columns]

    async def check(
        self, report: Report, *, rejects: Rejects | None = None, journal: Journal | None = None
    ) -> None:
        """Check all rows of all files. `report` is called after each batch.

        Raise `InvalidInput` if a row is wrong, unless `rejects` allows that. It gets all problems.
        A `journal` that says that all files were checked is believed.
        """
        rejects, journal = rejects or Rejects(), journal or Journal()
        if journal.rejected is not None:
            rejects.rows = journal.rejected
            return
        for position, file in enumerate(self._files):
            rows = 0
            async with aclosing(prefetched(file.check(journal.began_ms))) as batches:
                async for batch in batches:
                    rejects.add(batch.rejected, batch.problems)
                    rows = batch.stop
                    report(batch.stop - batch.start)
                    if rejects.is_full:
                        raise rejects.error()
            self._rows[position] = rows
        if rejects.rows and not rejects.allowed:
            raise rejects.error()
        journal.checked(rejects.rows)

    async def write(
        self,
        store: FeatureStore,
        report: Report,
        *,
        guarded: bool = True,
        journal: Journal | None = None,
    ) -> dict[str, Pushed]:
        """Write all rows that are right; return the numbers of rows by the name of the group.

        If `guarded` is False, the store may replace newer rows by older ones. Use this only for
        groups that have no other writer yet. `report` is called after each batch. Rows that are
        done by the `journal` are left out. Raise `Unavailable` if not all rows could be written.
        """
        journal = journal or Journal()
        for position, file in enumerate(self._files):
            pushed = journal.pushed.setdefault(file.group_name, Pushed())
            done = journal.done(position)
            async with aclosing(prefetched(file.blocks(journal.began_ms, done))) as blocks:
                async for batch, block in blocks:
                    await _load(store, block, pushed, journal.began_ms, guarded=guarded)
                    pushed.rejected += batch.rejected
                    journal.advance(position, batch.stop)
                    report(batch.stop - batch.start)
        journal.forget()
        return journal.pushed


def _schema_of(
    file: SourceFile, catalog: Catalog, schema_version: int | None
) -> tuple[FeatureGroup, SchemaVersion]:
    try:
        group = catalog.group(file.group)
    except Unknown as error:
        path = file.stored.name
        error.message = f"{path}: {error.message} (or name the group with --group)"
        error.path = (path,)
        raise
    return group, group.version(schema_version) if schema_version else group.current


async def _load(
    store: FeatureStore, block: RowBlock, pushed: Pushed, now_ms: int, *, guarded: bool
) -> None:
    expired = block.expired(now_ms / 1000)
    live_rows = block
    if expired.any():
        # If a key has several rows, the expired ones are the oldest. They must not replace the
        # others, so they are written first.
        expired_rows = block.select(np.flatnonzero(expired))
        await store.load(expired_rows, guarded=guarded)
        pushed.expired += len(expired_rows)
        live_rows = block.select(np.flatnonzero(~expired))
    loaded = await store.load(live_rows, guarded=guarded)
    pushed.written += loaded.stored + loaded.unknown
    pushed.rows += len(block)
