"""Bulk loads of files, into a store that a cluster may serve from meanwhile, or into Kafka."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import TypeVar

from kirana.catalog.snapshot import Catalog
from kirana.errors import InvalidInput, Unknown
from kirana.ingest.feature_file import FeatureFile
from kirana.ingest.files import source_files
from kirana.ingest.journal import Journal, Pushed
from kirana.ingest.problems import Problem, error_of
from kirana.ingest.rejects import Rejects
from kirana.ingest.source import Source
from kirana.ingest.targets import Target
from kirana.loop import prefetched
from kirana.schema import FeatureGroup, SchemaVersion

T = TypeVar("T")

Report = Callable[[int], None]
"""A function that is called with the number of rows that were processed since its last call."""

SAMPLED_ROWS = 100


class Push:
    """A bulk load of files: Parquet, CSV and Arrow, on this machine or in object storage.

    The constructor opens the files and checks their columns. `check` and `write` read the rows.
    They all raise `InvalidInput` if a file is wrong, with all problems that were found, and
    `Unavailable` if a file can't be read. The constructor also raises `InvalidInput` if a path does
    not exist, or if the group of a file or its schema version is not in the catalog. `source` says
    how the files are read; its own files are not read. `ignored` has the names of files in folders
    that were left out, because their names do not end like those of data. `revision` is that of the
    catalog.
    """

    def __init__(
        self,
        paths: Sequence[str | Path],
        catalog: Catalog,
        source: Source | None = None,
    ) -> None:
        self._files: list[FeatureFile] = []
        self._source = source = source or Source()
        self.revision = catalog.revision.number
        problems: list[Problem] = []
        found, self.ignored = source_files([*map(str, paths)], source.group, catalog.groups)
        for file in found:
            try:
                group, version = _schema_of(file.group, catalog, source.schema_version)
                opened = FeatureFile(file, group, version, source)
            except (InvalidInput, Unknown) as error:
                problems.append(Problem(file.stored.name, None, None, error.message))
            else:
                self._files.append(opened)
                problems += opened.problems
        if problems:
            raise error_of(problems, len(problems))
        self._rows = [file.rows for file in self._files]

    @property
    def rows(self) -> int | None:
        """The number of rows in all files. Before `check`, None if a file does not say it."""
        known = [rows for rows in self._rows if rows is not None]
        return sum(known) if len(known) == len(self._rows) else None

    @property
    def has_archive(self) -> bool:
        """Whether one of the files is of an archive, which has several rows of a key."""
        return any(file.is_archived for file in self._files)

    @property
    def identity(self) -> list[object]:
        """What is pushed: the files with their sizes and times, and how they are read."""
        source = self._source
        columns = [sorted(source.renames.items()), source.ignore_extra, source.event_time]
        csv = [source.csv_delimiter, source.csv_escape]
        return [[file.identity for file in self._files], columns, csv]

    async def check(
        self, report: Report, *, rejects: Rejects | None = None, journal: Journal | None = None
    ) -> None:
        """Check all rows of all files. `report` is called after each batch.

        Raise `InvalidInput` if a row is wrong, unless `rejects` allows that. It gets all problems.
        A `journal` that says that all files were checked is believed.
        """
        rejects, journal = rejects or Rejects(), journal or Journal()
        if journal.is_checked:
            return
        for position, file in enumerate(self._files):
            pushed = journal.pushed.setdefault(file.group_name, Pushed())
            rows = 0
            try:
                async with aclosing(prefetched(file.check(journal.began_ms))) as batches:
                    async for batch in batches:
                        checked = batch.stop - batch.start
                        rejects.add(batch.rejected, checked, batch.problems)
                        pushed.rejected += batch.rejected
                        rows = batch.stop
                        report(checked)
                        if rejects.is_full:
                            raise rejects.error()
            except InvalidInput as error:
                if rejects.is_full:
                    raise
                rejects.add_file(Problem(file.name, None, None, error.message))
            self._rows[position] = rows
        if rejects.are_wrong:
            raise rejects.error()
        # Their reasons must be in the file before the journal says that they were found.
        rejects.close()
        journal.checked()

    async def resumes(self, target: Target[T], journal: Journal) -> bool:
        """Return whether a target has the rows that an earlier run has written.

        It may have lost them, for example if it keeps rows in memory only. A few rows of each file
        are looked up. Rows that have expired count as lost.
        """
        for position, file in enumerate(self._files):
            if journal.done(position):
                batch = next(file.batches(journal.began_ms), None)
                keys = batch.keys.slice(0, SAMPLED_ROWS).to_pylist() if batch else []
                if not await target.has(file.group_name, keys):
                    return False
        return True

    async def write(
        self, target: Target[T], report: Report, *, journal: Journal | None = None
    ) -> dict[str, Pushed]:
        """Write all rows that are right; return the numbers of rows by the name of the group.

        `report` is called after each batch. Rows that are done by the `journal` are left out. Raise
        `Unavailable` if not all rows could be written, and `InvalidInput` if a file has changed
        since it was checked.
        """
        journal = journal or Journal()
        for position, file in enumerate(self._files):
            _require_unchanged(file)
            pushed = journal.pushed.setdefault(file.group_name, Pushed())
            read = target.batches(file, journal.began_ms, journal.done(position))
            async with aclosing(prefetched(read)) as batches:
                async for batch, rows in batches:
                    await target.write(rows, pushed)
                    journal.advance(position, batch.stop)
                    report(batch.stop - batch.start)
            _require_unchanged(file)
        journal.forget()
        return journal.pushed


def _schema_of(
    name: str, catalog: Catalog, schema_version: int | None
) -> tuple[FeatureGroup, SchemaVersion]:
    try:
        group = catalog.group(name)
    except Unknown as error:
        error.message += " (or name the group with --group)"
        raise
    return group, group.version_or_current(schema_version)


def _require_unchanged(file: FeatureFile) -> None:
    if not file.is_unchanged():
        raise InvalidInput(
            f"{file.name} has changed while it was read, so some of its rows may be missing: push "
            "it again"
        )
