"""The interface of the features part: its protocols and data types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from kirana.codecs import Column
from kirana.request import RequestContext
from kirana.schema import Array
from kirana.service import Service


@dataclass(frozen=True, slots=True)
class FeatureQuery:
    """A read of features of one entity. `keys` are key texts (see `kirana.key_texts`).

    `matrix` and `columns` are names of features, as `group.feature` without the entity. Those of
    `matrix` are returned as float32, side by side, and those of `columns` each in its own dtype.
    With `provenance`, the answer has the provenance of each value of `columns`, and the age and the
    tier of each row. With `nulls`, the answer says which features of `matrix` are null in the
    store.
    """

    entity: str
    keys: Sequence[str]
    matrix: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    provenance: bool = False
    nulls: bool = False


@dataclass(frozen=True, slots=True)
class EntityRows:
    """The answer to a `FeatureQuery`: one row per key, in the order of its keys.

    A cell that is null or has no stored value has the default of its feature. `matrix` is
    `float32[keys, sum of the feature sizes]`. Do not write to it, because it may be a view of
    stored rows. `columns` has each column by the name that the query uses.

    `status` has, for each group, a `kirana.codecs.Status` per key. If the query asks for
    `provenance`, `age_ms` has, for each group, the milliseconds since the event time of each row
    (-1 unless its status is OK or EXPIRED), `tier` has a `kirana.codecs.rows.Tier` per key, and
    `provenance` has, for each column, a `kirana.codecs.rows.Provenance` per key. Otherwise these
    are empty. Groups are named without the entity.

    `matrix_nulls` says which features of the query's `matrix` are null in the store, as
    `bool[keys, features]`. It is None if the query did not ask for it, or if no cell of the rows is
    null.
    """

    matrix: npt.NDArray[np.float32]
    columns: Mapping[str, Column]
    status: Mapping[str, npt.NDArray[np.uint8]]
    age_ms: Mapping[str, npt.NDArray[np.int64]] = field(default_factory=dict)
    provenance: Mapping[str, npt.NDArray[np.uint8]] = field(default_factory=dict)
    matrix_nulls: npt.NDArray[np.bool_] | None = None
    tier: Mapping[str, npt.NDArray[np.uint8]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FeatureWrite:
    """Rows of one group to be stored, with one value per key in each column.

    `columns` must have all features of `schema_version` (0 = the newest version) and no others.
    `event_time_ms` has one entry per key, in Unix milliseconds.
    """

    group: str
    keys: Sequence[str]
    columns: Mapping[str, Column]
    event_time_ms: npt.NDArray[np.uint64]
    schema_version: int = 0


@dataclass(frozen=True, slots=True)
class WriteResult:
    """The numbers of rows of a write.

    `written` rows were stored. `stale` rows were not stored, because the store has newer rows. If a
    store can't say which of the two happened to a row, the row counts as `written`. `expired` rows
    were past the TTL of their group when they arrived. They replace older rows, but reads return
    defaults for them. `accepted` rows are on their way to the store, and all others are 0.
    """

    written: int
    stale: int
    expired: int = 0
    accepted: int = 0


class FeatureSource(Service, Protocol):
    """Reads of features. Each call uses the revision and the time of its `RequestContext`."""

    async def read(
        self, queries: Sequence[FeatureQuery], context: RequestContext
    ) -> list[EntityRows]:
        """Return one answer per query, in order.

        Raise `Unknown` if an entity or a feature does not exist, and `TooLarge` if the rows of a
        query have more than `MAX_READ_BYTES`. Raise `Unavailable` if the revision can't be read, or
        if some rows can't be read and the part is set to fail then. A key without a row is not an
        error.
        """


class FeatureSink(Protocol):
    """Writes of features. Each call uses the revision and the time of its `RequestContext`."""

    async def write(self, write: FeatureWrite, context: RequestContext) -> WriteResult:
        """Store rows, except those that are older than the stored ones.

        Raise `InvalidInput` if the schema version does not exist, a feature is missing or an event
        time is too far in the future, `TooLarge` if a row has too many bytes, `Unknown` for an
        unknown group or feature, and `Unavailable` if not all rows could be stored.
        """

    async def delete(
        self,
        group: str,
        keys: Sequence[str],
        event_time_ms: Array,
        force: bool,
        context: RequestContext,
    ) -> WriteResult:
        """Replace rows by tombstones, unless the rows are newer than the tombstones.

        `event_time_ms` has one event time per key, in Unix milliseconds. With `force`, rows that
        are more than `MAX_FUTURE_MS` ahead of the time of the request are removed, without
        tombstones.

        Raise `Unknown` for an unknown group, `InvalidInput` if an event time is too far in the
        future, `Conflict` if a row must be removed from a store that can't forget it, and
        `Unavailable` if not all tombstones could be stored.
        """


class Features(FeatureSource, FeatureSink, Protocol):
    """The features part: reads and writes."""

    async def check_write(self, write: FeatureWrite, context: RequestContext) -> None:
        """Raise what `write` would raise for these rows, if the store answers. Store nothing."""
