"""The `Codec` protocol, and the types of its input and output."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from kirana.ragged import Bytes
from kirana.schema import Array, FeatureGroup, SchemaVersion


class Status(IntEnum):
    """The result of reading one row. If it is not OK, the values of the row are defaults."""

    OK = 0
    MISSING = 1
    EXPIRED = 2
    UNAVAILABLE = 3
    CORRUPT = 4


STATUS_NAMES = tuple(status.name.lower() for status in Status)
"""The name of each `Status` in responses, at the position of its code."""


class Provenance(IntEnum):
    """Where the value of a cell comes from.

    `NULL` is a stored null, for which the value is the default. `NOT_IN_VERSION` means that the row
    was written in a schema version without the feature. `NO_ROW` means that the status of the row
    is not OK.
    """

    STORED = 0
    NULL = 1
    NO_ROW = 2
    NOT_IN_VERSION = 3


class Tier(IntEnum):
    """The tier that a row was read from. A store without tiers counts as durable.

    `NONE` means that the status of the row is neither OK nor EXPIRED.
    """

    NONE = 0
    CACHE = 1
    DURABLE = 2
    HOT = 3


TIER_NAMES: tuple[Literal["cache", "durable", "hot"] | None, ...] = (
    None,
    "cache",
    "durable",
    "hot",
)
"""The name of each `Tier` in responses, at the position of its code."""

PROVENANCE_NAMES = tuple(provenance.name.lower() for provenance in Provenance)
"""The name of each `Provenance` in responses, at the position of its code."""


@dataclass(frozen=True, slots=True)
class Column:
    """The values of one feature.

    `values` has the shape `(rows, *feature.shape)`. `nulls` is a mask of the rows whose value is
    null, `bool[rows]`, or None if there are no nulls.
    """

    values: Array
    nulls: npt.NDArray[np.bool_] | None = None


@dataclass(frozen=True, slots=True)
class Texts:
    """The values of one string feature, without a Python object per string.

    `data` holds the strings in UTF-8. String i begins at `starts[i]` and has `sizes[i]` bytes.
    `nulls` is a mask of the rows whose value is null, `bool[rows]`, or None if there are no nulls.
    """

    data: Bytes
    starts: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]
    nulls: npt.NDArray[np.bool_] | None = None


def selected(column: Column | Texts, rows: npt.NDArray[np.int64]) -> Column | Texts:
    """Return a column with only the rows at these positions, in their order."""
    nulls = None if column.nulls is None else column.nulls[rows]
    if isinstance(column, Texts):
        return Texts(column.data, column.starts[rows], column.sizes[rows], nulls)
    return Column(column.values[rows], nulls)


@dataclass(slots=True)
class Piece:
    """Some rows of a batch, and their positions in the batch.

    `values` is either a sequence of encoded rows, in which None is a missing row, or a table of
    rows of one size (`uint8[rows, bytes]`). The cache gives such a table as a
    `kirana.native.borrowed.Borrowed`. If `positions` is None, the piece is the whole batch, in its
    order.
    """

    positions: npt.NDArray[np.intp] | None
    values: Sequence[bytes | None] | npt.NDArray[np.uint8]


class MatrixPlan:
    """The features that form the columns of a float32 matrix, in order.

    `sizes` holds the number of columns per feature, and `defaults` one default per column. Reuse
    a plan for all reads of the same features, because codecs keep in `runs` what they compute from
    it.
    """

    __slots__ = ("defaults", "names", "runs", "sizes", "version")

    def __init__(self, version: SchemaVersion, names: tuple[str, ...]) -> None:
        self.version = version
        self.names = names
        features = [version.feature(name) for name in names]
        self.sizes = tuple(feature.size for feature in features)
        defaults = [np.ravel(feature.default_array()) for feature in features]
        self.defaults = np.concatenate(defaults).astype(np.float32)
        self.runs: dict[Any, Any] = {}


class Rows(Protocol):
    """A decoded batch of rows.

    `status` holds one `Status` per row, and `event_time_ms` one event time per row (Unix
    milliseconds, 0 = unknown). Rows whose status is not OK have the defaults of the group's current
    schema version. `unknown_versions` holds the numbers of unknown schema versions: rows that have
    one of them, and are not expired, are corrupt.
    """

    status: npt.NDArray[np.uint8]
    event_time_ms: npt.NDArray[np.uint64]
    unknown_versions: frozenset[int]

    @property
    def any_nulls(self) -> bool:
        """Whether any cell of any feature is a stored null."""

    def column(self, name: str) -> Column:
        """Return the values of one feature, in its dtype.

        The value is the default for nulls, and for rows that lack the feature or are not OK. Raise
        `Unknown` if the current schema version has no such feature.
        """

    def provenance(self, name: str) -> npt.NDArray[np.uint8]:
        """Return the `Provenance` of each cell of one feature, `uint8[rows]`."""

    def fill(self, out: npt.NDArray[np.float32], plan: MatrixPlan) -> None:
        """Write the features of `plan`, converted to float32, into `out`.

        `out` has the shape `(rows, sum(plan.sizes))`.
        """

    def view(self, plan: MatrixPlan) -> npt.NDArray[np.float32] | None:
        """Return the matrix that `fill` would write, as one block of the stored bytes.

        Return None if the rows do not contain such a block, for example because a cell needs its
        default. The matrix is read-only, because it may share the memory of the stored rows.
        """


class Codec(Protocol):
    """Encodes columns as stored rows, and decodes stored rows."""

    name: str

    def encode(
        self,
        group: FeatureGroup,
        version: SchemaVersion,
        columns: Mapping[str, Column],
        event_time_ms: npt.NDArray[np.uint64],
    ) -> list[bytes]:
        """Return one encoded row per event time (Unix milliseconds).

        `columns` must have all features of `version`. Raise `TooLarge` if a row has too many bytes.
        """

    def encode_block(
        self,
        group: FeatureGroup,
        version: SchemaVersion,
        columns: Mapping[str, Column | Texts],
        event_time_ms: npt.NDArray[np.uint64],
    ) -> tuple[Bytes, npt.NDArray[np.int64]]:
        """Return all encoded rows, joined, and the position where each row ends.

        The rows decode to the same cells as those of `encode`, but are made without a Python
        object per row. Columns of strings must be `Texts`. Raise `TooLarge` as `encode` does.
        """

    def tombstones(self, event_time_ms: npt.NDArray[np.uint64], expiry_s: int) -> list[bytes]:
        """Return one tombstone per event time. A tombstone is the encoded form of a deleted row.

        Event times are in Unix milliseconds. The tombstones expire at `expiry_s` (Unix seconds,
        0 = never).
        """

    def decode(self, values: Sequence[bytes | None], group: FeatureGroup, now_s: float) -> Rows:
        """Decode a batch of encoded rows, None for missing ones.

        `now_s` is the Unix time that decides which rows have expired. A row that can't be decoded
        gets the status `CORRUPT`; nothing is raised.
        """

    def decode_pieces(
        self, count: int, pieces: Sequence[Piece], group: FeatureGroup, now_s: float
    ) -> Rows:
        """Decode a batch of `count` rows that is given in pieces. Rows in no piece are missing."""

    def write_order(self, value: bytes) -> tuple[int, bool]:
        """Return the event time of a row in Unix milliseconds, and whether the row is a tombstone.

        A write replaces the stored row unless the stored row has the greater write order.
        """

    def expiry_s(self, value: bytes) -> int:
        """Return the Unix time in seconds from which a row is expired; 0 = never, or unknown."""
