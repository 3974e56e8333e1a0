"""Rows of a file that are right, and the problems of all others."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from kirana.codecs import CODECS, Column
from kirana.codecs.arrow import joined_of
from kirana.codecs.rows import Texts, selected
from kirana.errors import TooLarge
from kirana.features.tombstones import tombstones
from kirana.ingest.problems import Problem, wrong_rows
from kirana.schema import FeatureGroup, SchemaVersion
from kirana.stores import RowBlock
from kirana.streams.messages import DeleteRows, PutRows

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class FeatureBatch:
    """Rows that are ready to be encoded.

    `keys` are key texts. `columns` has the values of each feature by its name. `event_time_ms` has
    one entry per row, in Unix milliseconds, `row_numbers` the number of each row in the file.

    With `is_delete`, the rows delete those of the store, and their columns don't count. Otherwise
    `deleted` may be a mask of the rows that do.

    The batch stands for the rows from `start` to `stop` of those in the file that can be read.
    `rejected` rows are wrong, or can't be read. `problems` has at least one problem of each.
    """

    keys: pa.StringArray
    columns: dict[str, Column | Texts]
    event_time_ms: npt.NDArray[np.uint64]
    start: int
    stop: int
    row_numbers: Rows
    rejected: int
    problems: list[Problem]
    deleted: npt.NDArray[np.bool_] | None = None
    is_delete: bool = False

    def parts(self) -> Iterator[FeatureBatch]:
        """Yield the rows that delete others, if there are any, and then all others.

        Together they stand for as many rows of the file as the batch.
        """
        if self.deleted is None or not self.deleted.any():
            yield self
            return
        deletes = self.selected(np.flatnonzero(self.deleted))
        yield replace(deletes, stop=self.start, rejected=0, problems=[], is_delete=True)
        yield self.selected(np.flatnonzero(~self.deleted))

    def block(self, group: FeatureGroup, version: SchemaVersion) -> RowBlock:
        """Return the rows for a store. Raise `TooLarge` if one exceeds a limit."""
        if self.is_delete:
            keys = self.keys.to_pylist()
            return tombstones(group, keys, self.event_time_ms, int(time.time()))
        codec = CODECS[group.codec]
        values, value_ends = codec.encode_block(group, version, self.columns, self.event_time_ms)
        keys, key_ends = joined_of(self.keys)
        return RowBlock(
            group.name,
            codec,
            keys,
            key_ends,
            values,
            value_ends,
            group.expiry_s(self.event_time_ms),
            self.event_time_ms,
        )

    def stream_rows(self, group: FeatureGroup, version: SchemaVersion) -> PutRows | DeleteRows:
        """Return the rows for a stream."""
        if self.is_delete:
            return DeleteRows(group, self.keys, self.event_time_ms, force=False)
        return PutRows(group, version, self.keys, self.columns, self.event_time_ms)

    def fitting(
        self, group: FeatureGroup, version: SchemaVersion, file: str
    ) -> tuple[FeatureBatch, RowBlock]:
        """Return the batch and its rows for a store, both without rows that exceed a limit."""
        try:
            return self, self.block(group, version)
        except TooLarge:
            all_rows = np.arange(len(self.row_numbers))
            found = wrong_rows(
                lambda start, stop: self.selected(all_rows[start:stop]).block(group, version),
                len(all_rows),
            )
        problems = [
            Problem(file, int(self.row_numbers[row]), None, error.message)
            for row, error in sorted(found.items())
        ]
        kept = self.selected(np.delete(all_rows, list(found)))
        rejected = self.rejected + len(problems)
        kept = replace(kept, rejected=rejected, problems=[*self.problems, *problems])
        return kept, kept.block(group, version)

    def selected(self, rows: Rows) -> FeatureBatch:
        """Return the batch with only the rows at these positions."""
        return replace(
            self,
            keys=self.keys.take(pa.array(rows)),
            columns={name: selected(column, rows) for name, column in self.columns.items()},
            event_time_ms=self.event_time_ms[rows],
            deleted=None if self.deleted is None else self.deleted[rows],
            row_numbers=self.row_numbers[rows],
        )
