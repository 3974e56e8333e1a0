"""A file with rows of one feature group.

A file is read twice, batch by batch: first to check all rows, then to write them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from kirana.archive.columns import DELETED, OF_VERSION, OWN
from kirana.ingest.conversion import Conversion
from kirana.ingest.feature_batch import FeatureBatch
from kirana.ingest.file_columns import FileColumns
from kirana.ingest.files import SourceFile
from kirana.ingest.formats import open_table
from kirana.ingest.formats.base import TableBatch
from kirana.ingest.problems import Problem
from kirana.ingest.source import Source
from kirana.schema import NUMERIC, FeatureGroup, SchemaVersion
from kirana.stores import RowBlock
from kirana.streams.messages import DeleteRows, PutRows


class FeatureFile:
    """A file with rows of one feature group. A file of an archive has the version that it names.

    The columns are checked when the file is opened: `problems` says what is wrong with them. The
    rows are checked when they are read. `rows` is None if the file does not say how many it has.

    The constructor raises `InvalidInput` if the file has another format, and `Unavailable` if it
    can't be read. The methods that read rows also raise `InvalidInput` if the file is damaged. The
    message of `InvalidInput` does not name the file.
    """

    def __init__(
        self,
        file: SourceFile,
        group: FeatureGroup,
        version: SchemaVersion,
        source: Source | None = None,
    ) -> None:
        source = source or Source()
        self.name = file.stored.name
        self.group_name = group.name
        self._stored = file.stored
        self._group = group
        self._event_time = source.event_time
        self._table = open_table(file.stored, file.format, source)
        metadata = self._table.schema.metadata or {}
        self.is_archived = OF_VERSION in metadata
        if self.is_archived:
            version = group.version(int(metadata[OF_VERSION]))
        self._version = version
        names = self._table.schema.names
        if self.is_archived:
            names = [name for name in names if name not in OWN]
        self._columns = FileColumns(names, file.partitions, source)
        self.rows = self._table.rows
        # If rows do not differ in size, their size was checked when the group was published.
        self._sizes_differ = group.codec == "text" or any(
            feature.dtype == "string" for feature in version.features
        )
        # Some programs write empty files without columns.
        self.problems = self._column_problems() if self._table.schema.names else []

    def _column_problems(self) -> list[Problem]:
        problems = [
            Problem(self.name, None, column, reason)
            for column, reason in self._columns.problems(self._group, self._version)
        ]
        conversion = self._conversion(time.time_ns() // 1_000_000)
        return problems or conversion.column_problems(self._table.schema)

    @property
    def identity(self) -> list[object]:
        """What tells this file from others, and from the same file after a change."""
        stored = self._stored
        group = [self._group.name, self._version.number]
        return [stored.name, stored.size, stored.modified_ns, *group]

    def is_unchanged(self) -> bool:
        """Return whether the file is still the one that was opened.

        Raise `Unavailable` if it can't be read any more.
        """
        return self._stored.version() == (self._stored.size, self._stored.modified_ns)

    def check(self, now_ms: int, done: int = 0) -> Iterator[FeatureBatch]:
        """Read and check rows, as `batches` does, and also that no row is too large."""
        for batch in self.batches(now_ms, done):
            yield self._fitting(batch)[0] if self._sizes_differ else batch

    def blocks(self, now_ms: int, done: int = 0) -> Iterator[tuple[FeatureBatch, RowBlock]]:
        """Yield what `batches` yields, each batch also as rows for a store."""
        return map(self._fitting, self.batches(now_ms, done))

    def stream_rows(
        self, now_ms: int, done: int = 0
    ) -> Iterator[tuple[FeatureBatch, PutRows | DeleteRows]]:
        """Yield what `check` yields, without the first `done` rows, each batch also for a topic."""
        for batch in self.check(now_ms, done):
            yield batch, self.stream_rows_of(batch)

    def stream_rows_of(self, batch: FeatureBatch) -> PutRows | DeleteRows:
        """Return the rows of a batch for a stream."""
        return batch.stream_rows(self._group, self._version)

    def _fitting(self, batch: FeatureBatch) -> tuple[FeatureBatch, RowBlock]:
        return batch.fitting(self._group, self._version, self.name)

    def batches(self, now_ms: int, done: int = 0) -> Iterator[FeatureBatch]:
        """Yield the readable rows in batches, without the first `done` of them.

        `now_ms` (Unix milliseconds) is the event time of all rows if the file has no event times.
        Event times must not be more than five minutes after it.
        """
        if not self._table.schema.names:
            return
        conversion = self._conversion(now_ms)
        start = 0
        for batch in self._table.batches(conversion.columns(), self._row_bytes()):
            skipped = max(done - start, 0)
            if skipped == 0 or skipped < len(batch.rows):
                yield from conversion.convert(_without(batch, skipped), start + skipped).parts()
            start += len(batch.rows)

    def _conversion(self, now_ms: int) -> Conversion:
        return Conversion(
            self.name,
            self._group.entity,
            self._version,
            self._columns,
            is_text=self._table.is_text,
            event_time=self._event_time,
            now_ms=now_ms,
            deleted=DELETED if self.is_archived else None,
        )

    def _row_bytes(self) -> int:
        """Return how many bytes the numbers of a row have in memory."""
        numeric = [feature for feature in self._version.features if feature.dtype in NUMERIC]
        return sum(feature.size * NUMERIC[feature.dtype].itemsize for feature in numeric)


def _without(batch: TableBatch, rows: int) -> TableBatch:
    """Return a batch without its first rows, which were processed already."""
    if not rows:
        return batch
    return TableBatch(batch.rows.slice(rows), batch.numbers[rows:])
