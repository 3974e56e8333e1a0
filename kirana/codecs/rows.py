"""What every codec takes and gives: columns in, rows of bytes out, and back."""

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
    """What became of one row; anything but OK means that its values are defaults."""

    OK = 0
    MISSING = 1
    EXPIRED = 2
    UNAVAILABLE = 3
    CORRUPT = 4


STATUS_NAMES = tuple(status.name.lower() for status in Status)


class Provenance(IntEnum):
    """Where one cell comes from."""

    STORED = 0
    NULL = 1
    NO_ROW = 2
    NOT_IN_VERSION = 3


class Tier(IntEnum):
    """Which tier had a row. A store without tiers is the durable one."""

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

PROVENANCE_NAMES = tuple(each.name.lower() for each in Provenance)


@dataclass(frozen=True, slots=True)
class Column:
    """Values of one feature: shape (rows, *feature.shape); `nulls` (rows,) is True where null."""

    values: Array
    nulls: npt.NDArray[np.bool_] | None = None


@dataclass(frozen=True, slots=True)
class Texts:
    """Strings of one feature in UTF-8, side by side in `data`: no object a string."""

    data: Bytes
    starts: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]
    nulls: npt.NDArray[np.bool_] | None = None


@dataclass(slots=True)
class Piece:
    """Some rows of a batch: their positions in it, and their values, or a table of packed rows (or
    what a cache lends out of its own).

    Without positions it is the whole batch, in its order.
    """

    positions: npt.NDArray[np.intp] | None
    values: Sequence[bytes | None] | npt.NDArray[np.uint8]


class MatrixPlan:
    """Features of a schema version that are wanted as float32, side by side.

    Made once a query and not on every read: what codecs work out of it stays in `runs`, by
    the layout of the rows that they met.
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
    """A decoded batch. Rows that are not OK hold the defaults of the schema that is read."""

    status: npt.NDArray[np.uint8]
    event_time_ms: npt.NDArray[np.uint64]
    unknown_versions: frozenset[int]

    @property
    def any_nulls(self) -> bool:
        """Whether any cell of any feature is a stored null."""

    def column(self, name: str) -> Column:
        """Return one feature in its own dtype, defaults where a row lacks it."""

    def provenance(self, name: str) -> npt.NDArray[np.uint8]:
        """Return a `Provenance` a row for one feature."""

    def fill(self, out: npt.NDArray[np.float32], plan: MatrixPlan) -> None:
        """Write features side by side into `out` of shape (rows, sum of their sizes)."""

    def view(self, plan: MatrixPlan) -> npt.NDArray[np.float32] | None:
        """Return what `fill` would write, where no cell has to be changed: to be read only, it
        may lie in what was fetched.
        """


class Codec(Protocol):
    name: str

    def encode(
        self,
        group: FeatureGroup,
        version: SchemaVersion,
        columns: Mapping[str, Column],
        event_time_ms: npt.NDArray[np.uint64],
    ) -> list[bytes]:
        """Return one value a row; every feature of `version` must be in `columns`."""

    def encode_block(
        self,
        group: FeatureGroup,
        version: SchemaVersion,
        columns: Mapping[str, Column | Texts],
        event_time_ms: npt.NDArray[np.uint64],
    ) -> tuple[Bytes, npt.NDArray[np.int64]]:
        """Return values that mean what those of `encode` do, side by side, and where each ends,
        made without an object a row. Strings come as `Texts`.
        """

    def tombstones(self, event_time_ms: npt.NDArray[np.uint64], expiry_s: int) -> list[bytes]:
        """Return the values that stand for rows deleted at these times, until `expiry_s`."""

    def decode(self, values: Sequence[bytes | None], group: FeatureGroup, now_s: float) -> Rows:
        """Read a batch, None where the store has nothing. Never raises for what the bytes are."""

    def decode_pieces(
        self, count: int, pieces: Sequence[Piece], group: FeatureGroup, now_s: float
    ) -> Rows:
        """Read a batch of `count` rows that came in pieces; what is in none is missing."""

    def order(self, value: bytes) -> tuple[int, bool]:
        """Return event time (ms) and whether it is a tombstone: the order of writes."""

    def expiry_s(self, value: bytes) -> int:
        """Return the Unix seconds from which on a value is expired; 0 = never."""
