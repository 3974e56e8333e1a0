"""What others ask of the features, wherever they run: one protocol to read, one to write."""

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
    """Features of one entity for distinct `keys` (key texts, see `kirana.key_texts`).

    `matrix` are wanted as float32 side by side, `columns` each in its own dtype; both are
    `group.feature` names without the entity. With `nulls` it is told where the matrix has
    defaults for nulls that are stored.
    """

    entity: str
    keys: Sequence[str]
    matrix: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    provenance: bool = False
    nulls: bool = False


@dataclass(frozen=True, slots=True)
class EntityRows:
    """The answer to a query, one row a key; what is not stored is the feature's default.

    `matrix` has the shape (keys, sum of the sizes of the features), `matrix_nulls` the shape
    (keys, features), or is None where no null is or they were not asked for. `status` holds for
    each group a `kirana.codecs.Status` a key, `age_ms` how old each row is (-1 where there is
    none), `tier` a `kirana.codecs.rows.Tier` a key, and `provenance` for each column a
    `kirana.codecs.rows.Provenance` a key, if asked for.
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
    """Rows of one group: every feature of `schema_version`, in columns of one length.

    `event_time_ms` has one entry a key; `schema_version` 0 is the newest.
    """

    group: str
    keys: Sequence[str]
    columns: Mapping[str, Column]
    event_time_ms: npt.NDArray[np.uint64]
    schema_version: int = 0


@dataclass(frozen=True, slots=True)
class WriteResult:
    """What became of the rows of a write, as far as the store can know.

    `stale` ones were older than what was there; a store that does not tell them counts them as
    `written`. `expired` ones were past the TTL of their group as they came: they replace older
    rows, and are never read.
    """

    written: int
    stale: int
    expired: int = 0


class FeatureSource(Service, Protocol):
    """Every call is judged on the revision and at the time of its request."""

    async def read(
        self, queries: Sequence[FeatureQuery], context: RequestContext
    ) -> list[EntityRows]:
        """Answer all queries.

        Raises `Unknown` for an entity, group or feature, never for a key.
        """


class FeatureSink(Protocol):
    """Every call is judged on the revision and at the time of its request."""

    async def write(self, write: FeatureWrite, context: RequestContext) -> WriteResult:
        """Store rows durably.

        Raises `InvalidInput` that names the feature which is missing or too many.
        """

    async def delete(
        self, group: str, keys: Sequence[str], event_time_ms: Array, context: RequestContext
    ) -> WriteResult:
        """Replace rows by tombstones of these event times."""


class Features(FeatureSource, FeatureSink, Protocol):
    """What the part that owns the feature store offers."""
