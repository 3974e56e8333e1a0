"""Rows of a file as rows of a feature group."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from kirana.codecs import Column
from kirana.codecs.rows import Texts
from kirana.errors import InvalidInput
from kirana.ingest.columns import event_times, text, values
from kirana.ingest.feature_batch import FeatureBatch
from kirana.ingest.file_columns import FileColumns
from kirana.ingest.formats.base import TableBatch
from kirana.ingest.keys import key_texts
from kirana.ingest.problems import Problem, wrong_rows
from kirana.ingest.texts import parsed
from kirana.schema import Entity, Feature, SchemaVersion

_KEYS, _TIMES = "[keys]", "[event times]"
"""Names of converters. The names of features have no brackets."""

Convert = Callable[[pa.RecordBatch], Any]


class Conversion:
    """Converts rows of one file.

    With `is_text`, all values in the file are text. `event_time` is the column of the event times;
    without it, they are all `now_ms` (Unix milliseconds). `deleted` is the column that says which
    rows delete others, if there is one.
    """

    def __init__(
        self,
        file: str,
        entity: Entity,
        version: SchemaVersion,
        columns: FileColumns,
        *,
        is_text: bool,
        event_time: str,
        now_ms: int,
        deleted: str | None = None,
    ) -> None:
        self._file = file
        self._entity = entity
        self._version = version
        self._sources = columns.stored
        self._constants = columns.constants
        self._is_text = is_text
        self._event_time = event_time
        self._now_ms = now_ms
        self._deleted = deleted
        self._converters: dict[str, Convert] = {
            _KEYS: self._keys,
            _TIMES: self._times,
            **{feature.name: self._values(feature) for feature in version.features},
        }

    def convert(self, batch: TableBatch, start: int) -> FeatureBatch:
        """Convert rows, the first of which is at the position `start` of all that are read.

        Raise `InvalidInput` if rows are wrong together, but none of them alone. This can't happen
        as long as the result of a row depends on that row only.
        """
        rows, numbers = batch.rows, batch.numbers
        converted: dict[str, Any] = {}
        problems: dict[int, list[Problem]] = {}
        for name, convert in self._converters.items():
            try:
                converted[name] = convert(rows)
            except InvalidInput as error:
                found = self._problems_of(name, convert, rows, numbers)
                if not found:
                    problem = self._problem(name, None, error)
                    raise InvalidInput(f"column '{problem.column}': {problem.reason}") from None
                for row, problem in found.items():
                    problems.setdefault(row, []).append(problem)
        right = np.ones(len(rows), dtype=np.bool_)
        if problems:
            right[list(problems)] = False
            rows = rows.filter(pa.array(right))
            converted = {name: convert(rows) for name, convert in self._converters.items()}
        return FeatureBatch(
            converted.pop(_KEYS),
            event_time_ms=converted.pop(_TIMES),
            columns=converted,
            start=start,
            stop=start + len(right),
            row_numbers=numbers[right],
            rejected=len(problems) + len(batch.unreadable),
            problems=[
                *(Problem(self._file, row, None, reason) for row, reason in batch.unreadable),
                *(problem for row in sorted(problems) for problem in problems[row]),
            ],
            deleted=self._deletes(rows),
        )

    def column_problems(self, schema: pa.Schema) -> list[Problem]:
        """Return a problem for each column that is wrong in all rows: its type, or its constant."""
        # Without a row, only the type can be wrong. With one that has no columns of the file, only
        # constants can be wrong.
        known = [schema.field(name) for name in self.columns()]
        empty = [pa.array([], _plain(field.type)) for field in known]
        no_rows = pa.record_batch(empty, names=[field.name for field in known])
        one_row = pa.record_batch([pa.nulls(1)], names=[""])
        problems = {}
        for name, convert in self._converters.items():
            for rows in (no_rows, one_row):
                with suppress(KeyError):
                    try:
                        convert(rows)
                    except InvalidInput as error:
                        problems[name] = self._problem(name, None, error)
        return list(problems.values())

    def columns(self) -> list[str]:
        """Return the columns of the file that are converted."""
        keys = [key.name for key in self._entity.keys]
        names = dict.fromkeys([*keys, *self._version.index, self._event_time])
        own = [] if self._deleted is None else [self._deleted]
        return [*(self._sources[name] for name in names if name in self._sources), *own]

    def _problems_of(
        self, name: str, convert: Convert, rows: pa.RecordBatch, numbers: npt.NDArray[np.int64]
    ) -> dict[int, Problem]:
        """Return the problem of each row that a converter refuses."""
        found = wrong_rows(lambda a, b: convert(rows.slice(a, b - a)), len(rows))
        return {row: self._problem(name, int(numbers[row]), error) for row, error in found.items()}

    def _problem(self, name: str, row: int | None, error: InvalidInput) -> Problem:
        column = self._event_time if name == _TIMES else name
        return Problem(self._file, row, error.field or column, error.message)

    def _deletes(self, rows: pa.RecordBatch) -> npt.NDArray[np.bool_] | None:
        if self._deleted is None:
            return None
        mask: npt.NDArray[np.bool_] = rows.column(self._deleted).to_numpy(zero_copy_only=False)
        return mask

    def _keys(self, rows: pa.RecordBatch) -> pa.StringArray:
        keys = self._entity.keys
        return key_texts(keys, [self._column(rows, key.name)[0] for key in keys])

    def _times(self, rows: pa.RecordBatch) -> npt.NDArray[np.uint64]:
        name = self._event_time
        if name not in self._sources and name not in self._constants:
            return np.full(len(rows), self._now_ms, dtype=np.uint64)
        return event_times(self._column(rows, name)[0], self._now_ms)

    def _values(self, feature: Feature) -> Convert:
        def convert(rows: pa.RecordBatch) -> Column | Texts:
            column, is_text = self._column(rows, feature.name)
            return values(feature, parsed(feature, text(column)) if is_text else column)

        return convert

    def _column(self, rows: pa.RecordBatch, name: str) -> tuple[Any, bool]:
        """Return a column, and whether its values were written as text."""
        if name in self._sources:
            return rows.column(self._sources[name]), self._is_text
        return pa.repeat(pa.scalar(self._constants[name], pa.string()), len(rows)), True


def _plain(type_: Any) -> Any:
    """Return the type that a column has when its dictionary is decoded."""
    return type_.value_type if pa.types.is_dictionary(type_) else type_
