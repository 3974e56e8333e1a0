"""Rows of messages as tables, one for each file of the archive."""

from __future__ import annotations

import datetime
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from kirana.archive.columns import (
    DELETED,
    EXPIRES,
    OFFSET,
    OWN,
    PARTITION,
    ROW,
    SCHEMA_VERSION,
    STORED,
    TOPIC,
    schema_of,
)
from kirana.codecs import Column
from kirana.codecs.arrow_types import arrow_type
from kirana.key_texts import split_key_text
from kirana.schema import EVENT_TIME, Feature, FeatureGroup, SchemaVersion

DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class ArchivedRows:
    """The rows of one message.

    `columns` are those of `version`; a delete has none. `event_time_ms` has one entry per key text.
    `stored_ms` is when the store had the rows. `topic`, `partition` and `offset` say where the
    message was.
    """

    group: FeatureGroup
    version: SchemaVersion
    keys: Sequence[str]
    columns: Mapping[str, Column] | None
    event_time_ms: npt.NDArray[np.uint64]
    stored_ms: int
    topic: str
    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class FileTable:
    """The rows of one file: those of a group, of a schema version, and of a day of event time."""

    group: str
    version: int
    day: str
    table: pa.Table


def tables_of(messages: Iterable[ArchivedRows]) -> Iterator[FileTable]:
    """Yield the rows of messages by group, schema version and day, in their order."""
    groups: dict[tuple[str, int], list[ArchivedRows]] = defaultdict(list)
    for message in messages:
        groups[message.group.name, message.version.number].append(message)
    for (name, version), rows in sorted(groups.items(), key=lambda entry: entry[0]):
        schema = schema_of(rows[0].group, rows[0].version)
        table = pa.concat_tables([_table(message, schema) for message in rows])
        times = np.concatenate([message.event_time_ms for message in rows])
        days = times // DAY_MS
        for day in np.unique(days).tolist():
            yield FileTable(name, version, _date(day), table.filter(pa.array(days == day)))


def _table(rows: ArchivedRows, schema: pa.Schema) -> pa.Table:
    count = len(rows.keys)
    ids = zip(*map(split_key_text, rows.keys), strict=True)
    columns: dict[str, pa.Array] = {
        key.name: pc.cast(pa.array(texts, pa.string()), schema.field(key.name).type)
        for key, texts in zip(rows.group.entity.keys, ids, strict=True)
    }
    columns[EVENT_TIME] = pa.array(rows.event_time_ms.astype(np.int64), OWN[STORED])
    for feature in rows.version.features:
        columns[feature.name] = (
            pa.nulls(count, arrow_type(feature))
            if rows.columns is None
            else arrow_column(feature, rows.columns[feature.name])
        )
    is_delete = rows.columns is None
    constants = {
        DELETED: is_delete,
        SCHEMA_VERSION: 0 if is_delete else rows.version.number,
        STORED: rows.stored_ms,
        TOPIC: rows.topic,
        PARTITION: rows.partition,
        OFFSET: rows.offset,
    }
    for name, value in constants.items():
        columns[name] = pa.repeat(pa.scalar(value, OWN[name]), count)
    expires = np.zeros(count) if is_delete else rows.group.expiry_s(rows.event_time_ms)
    expires_ms = expires.astype(np.int64) * 1_000
    columns[EXPIRES] = pa.array(expires_ms, OWN[EXPIRES], mask=expires_ms == 0)
    columns[ROW] = pa.array(np.arange(count, dtype=np.int32))
    return pa.table([columns[name] for name in schema.names], schema=schema)


def arrow_column(feature: Feature, column: Column) -> pa.Array:
    """Return the values of a feature as an Arrow array. Nulls stay null."""
    mask = column.nulls
    type_ = arrow_type(feature)
    if feature.dtype == "string":
        return pa.array(column.values.tolist(), type_, mask=mask)
    if not feature.shape:
        return pa.array(column.values, type_, mask=mask)
    count = len(column.values)
    flat = pa.array(np.ascontiguousarray(column.values).ravel(), type_.value_type)
    ends = np.arange(count + 1, dtype=np.int32) * feature.size
    lists_mask = None if mask is None else pa.array(mask)
    return pa.ListArray.from_arrays(pa.array(ends), flat, mask=lists_mask)


def _date(day: int) -> str:
    """Return a day since 1970 as ISO 8601."""
    return (datetime.date(1970, 1, 1) + datetime.timedelta(days=day)).isoformat()
