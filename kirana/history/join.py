"""A point-in-time join of keys and times with the archive."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa

from kirana.archive.tables import arrow_column
from kirana.catalog.snapshot import Catalog
from kirana.codecs import STATUS_NAMES
from kirana.errors import InvalidInput
from kirana.history.group import GroupHistory
from kirana.history.points import keys_of, times_of
from kirana.schema import Feature, FeatureGroup

TIME = "time"
"""The default name of the column of times."""

CHUNK_ROWS = 1_000_000
"""How many points are joined at a time. The archive is read once for each chunk."""


def history(
    catalog: Catalog,
    archive: str,
    points: pa.Table,
    features: Sequence[str],
    *,
    time: str = TIME,
    as_known: bool = False,
    status: bool = False,
) -> pa.Table:
    """Return the points, with the value that each feature had at the time of each point.

    `archive` is the URL of the archive. `points` has a column for each key of the entities, and the
    column `time`: timestamps, or Unix milliseconds. `features` are full names, like
    `product.stats.clicks`, which are also the names of the columns of the result. A value is what a
    read at that time would have returned: the newest row up to the time by its event time, in its
    schema version, or the default if there is none or it had expired. With `as_known`, rows that
    the store did not have yet don't count. With `status`, there is a column like
    `product.stats._status` for each group.

    Raise `Unknown` for an unknown feature, `InvalidInput` with the column as its field if the
    points are wrong, and `Unavailable` if the archive can't be read.
    """
    batches = history_batches(
        catalog, archive, points.to_batches(), features, time=time, as_known=as_known, status=status
    )
    found = list(batches)
    if not found:
        raise InvalidInput("there are no points")
    return pa.Table.from_batches(found)


def history_batches(
    catalog: Catalog,
    archive: str,
    points: Sequence[pa.RecordBatch] | Iterator[pa.RecordBatch],
    features: Sequence[str],
    *,
    time: str = TIME,
    as_known: bool = False,
    status: bool = False,
) -> Iterator[pa.RecordBatch]:
    """Yield what `history` returns, in batches. Memory holds at most `CHUNK_ROWS` points."""
    groups = _groups_of(catalog, features)
    for chunk in _chunks(points):
        times_ms = times_of(chunk, time)
        columns: dict[str, pa.Array] = dict(zip(chunk.schema.names, chunk.columns, strict=True))
        found: dict[str, pa.Array] = {}
        for group, wanted in groups.values():
            keys = keys_of(chunk, group.entity)
            of_group = GroupHistory(group, keys, times_ms, as_known=as_known)
            of_group.read(archive)
            rows, codes = of_group.rows()
            for name, feature in wanted:
                found[name] = arrow_column(feature, rows.column(feature.name))
            if status:
                texts = pa.array(STATUS_NAMES).take(pa.array(codes))
                columns[f"{group.name}._status"] = texts
        columns |= {name: found[name] for name in features}
        yield pa.record_batch(list(columns.values()), names=list(columns))


def _groups_of(
    catalog: Catalog, features: Sequence[str]
) -> dict[str, tuple[FeatureGroup, list[tuple[str, Feature]]]]:
    """Return the groups of features, each with what is wanted of it, by the name of the group."""
    groups: dict[str, tuple[FeatureGroup, list[tuple[str, Feature]]]] = {}
    for name in dict.fromkeys(features):
        group, feature = catalog.feature(name)
        groups.setdefault(group.name, (group, []))[1].append((name, feature))
    return groups


def _chunks(
    points: Sequence[pa.RecordBatch] | Iterator[pa.RecordBatch],
) -> Iterator[pa.RecordBatch]:
    """Yield the points in batches of about `CHUNK_ROWS` rows."""
    waiting: list[pa.RecordBatch] = []
    rows = 0
    for batch in points:
        for start in range(0, len(batch), CHUNK_ROWS):
            waiting.append(batch.slice(start, CHUNK_ROWS))
            rows += len(waiting[-1])
            if rows >= CHUNK_ROWS:
                yield from _joined(waiting)
                waiting, rows = [], 0
    yield from _joined(waiting)


def _joined(batches: list[pa.RecordBatch]) -> list[pa.RecordBatch]:
    """Return as few batches with the same rows as possible: an array of text has a limit."""
    return pa.Table.from_batches(batches).combine_chunks().to_batches() if batches else []
