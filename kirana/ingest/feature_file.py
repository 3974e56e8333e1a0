"""A file with rows of one feature group.

A file is read twice, batch by batch: first to check all rows, then to write them.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

from kirana.errors import did_you_mean
from kirana.ingest.conversion import Conversion
from kirana.ingest.feature_batch import FeatureBatch
from kirana.ingest.files import SourceFile
from kirana.ingest.formats import open_table
from kirana.ingest.problems import Problem
from kirana.ingest.source import Source
from kirana.schema import EVENT_TIME, NUMERIC, FeatureGroup, SchemaVersion
from kirana.stores import RowBlock

_INDEX = re.compile(r"__index_level_\d+__")
"""The columns in which pandas keeps the index of a table. They are ignored."""


class FeatureFile:
    """A file with rows of one feature group.

    The columns are checked when the file is opened: `problems` says what is wrong with them. The
    rows are checked when they are read. `rows` is None if the file does not say how many it has.
    The constructor raises `InvalidInput` if the file has another format, and `Unavailable` if it
    can't be read.
    """

    def __init__(
        self,
        file: SourceFile,
        group: FeatureGroup,
        version: SchemaVersion,
        source: Source | None = None,
    ) -> None:
        self.name = file.stored.name
        self.group_name = group.name
        self._file = file
        self._group = group
        self._version = version
        self._source = source or Source()
        self._table = open_table(file.stored, file.format)
        self.rows = self._table.rows
        # If rows do not differ in size, their size was checked when the group was published.
        self._sizes_differ = group.codec == "text" or any(
            feature.dtype == "string" for feature in version.features
        )
        self._keys = [key.name for key in group.entity.keys]
        self._sources = {
            self._source.renames.get(name, name): name
            for name in self._table.schema.names
            if not _INDEX.fullmatch(name)
        }
        self.problems = [
            Problem(self.name, None, column, reason) for column, reason in self._column_problems()
        ]
        if not self.problems:
            schema, now_ms = self._table.schema, int(time.time() * 1_000)
            self.problems = self._conversion(now_ms).column_problems(schema)

    @property
    def identity(self) -> list[object]:
        """What tells this file from others, and from the same file after a change."""
        stored = self._file.stored
        group = [self._group.name, self._version.number]
        return [stored.name, stored.size, stored.modified_ns, *group]

    def _column_problems(self) -> Iterator[tuple[str, str]]:
        """Yield each wrong column of the file, and what is wrong with it."""
        stored, source = self._table.schema.names, self._source
        for name in sorted({name for name in stored if stored.count(name) > 1}):
            yield name, "the file has this column twice"
        for old, new in source.renames.items():
            if old not in stored:
                yield old, f"can't be renamed to '{new}': {self._lacks('column')}"
            elif [source.renames.get(name, name) for name in set(stored)].count(new) > 1:
                yield old, f"can't be renamed to '{new}': the file has this column twice then"
        known = {*self._sources, *self._file.partitions}
        for kind, names in (("key", self._keys), ("feature", [*self._version.index])):
            for name in names:
                if name not in known:
                    yield name, self._lacks(kind)
        if source.event_time not in known and source.event_time != EVENT_TIME:
            yield source.event_time, self._lacks("column of event times")
        allowed = [*self._keys, *self._version.index, source.event_time]
        if not source.ignore_extra:
            for name in sorted(self._sources.keys() - set(allowed)):
                group = f"'{self._group.name}' version {self._version.number}"
                yield name, f"{group} has no such feature: {did_you_mean(name, allowed)}"

    def _lacks(self, kind: str) -> str:
        columns = ", ".join(sorted({*self._sources, *self._file.partitions}))
        return f"the file lacks this {kind}: its columns are {columns}"

    def check(self, now_ms: int) -> Iterator[FeatureBatch]:
        """Read and check all rows, as `batches` does, and also that no row is too large."""
        for batch in self.batches(now_ms):
            yield self._fitting(batch)[0] if self._sizes_differ else batch

    def blocks(self, now_ms: int, done: int = 0) -> Iterator[tuple[FeatureBatch, RowBlock]]:
        """Yield the rows that are right in batches, each also as rows for a store.

        The first `done` rows of the file, which end with a batch, are left out.
        """
        return map(self._fitting, self.batches(now_ms, done))

    def _fitting(self, batch: FeatureBatch) -> tuple[FeatureBatch, RowBlock]:
        return batch.fitting(self._group, self._version, self.name)

    def batches(self, now_ms: int, done: int = 0) -> Iterator[FeatureBatch]:
        """Yield all rows but the first `done` in batches, the same ones at each call.

        `now_ms` (Unix milliseconds) is the event time of all rows if the file has no event times.
        Event times must not be more than five minutes after it. Raise `InvalidInput` if the file is
        damaged, and `Unavailable` if it can't be read.
        """
        conversion = self._conversion(now_ms)
        wanted = dict.fromkeys([*self._keys, *self._version.index, self._source.event_time])
        columns = [self._sources[name] for name in wanted if name in self._sources]
        start = 0
        for rows in self._table.batches(columns, self._row_bytes()):
            if start >= done:
                yield conversion.convert(rows, start)
            start += len(rows)

    def _conversion(self, now_ms: int) -> Conversion:
        return Conversion(
            self.name,
            self._group.entity,
            self._version,
            self._sources,
            self._file.partitions,
            is_text=self._table.is_text,
            event_time=self._source.event_time,
            now_ms=now_ms,
        )

    def _row_bytes(self) -> int:
        """Return how many bytes the numbers of a row have in memory."""
        numeric = [feature for feature in self._version.features if feature.dtype in NUMERIC]
        return sum(feature.size * NUMERIC[feature.dtype].itemsize for feature in numeric)
