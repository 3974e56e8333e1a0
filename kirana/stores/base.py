"""What a feature store does; every backend passes `tests/contract/test_feature_store.py`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt


class ValueReader(Protocol):
    """What a store must know of values: a codec. `name` is the codec's in a feature group."""

    @property
    def name(self) -> str: ...

    def order(self, value: bytes) -> tuple[int, bool]:
        """Event time and tombstone: a write replaces what is not greater than itself."""

    def expiry_s(self, value: bytes) -> int:
        """Return the Unix seconds from which on a value is expired; 0 = never."""


@dataclass(frozen=True, slots=True)
class RowBlock:
    """Many rows of one size, as bytes side by side: no object a row.

    `keys` are joined, each up to its place in `key_ends`; `values` has the shape (rows, size).
    """

    keys: npt.NDArray[np.uint8]
    key_ends: npt.NDArray[np.int64]
    values: npt.NDArray[np.uint8]
    expiry_s: npt.NDArray[np.uint32]
    event_time_ms: npt.NDArray[np.uint64]

    def __len__(self) -> int:
        return len(self.values)

    def take(self, rows: npt.NDArray[np.intp]) -> RowBlock:
        """Return some of the rows, in the order in which they are named."""
        lengths = np.diff(self.key_ends, prepend=0)[rows]
        ends = np.cumsum(lengths)
        # from where each byte of the keys comes: its place in its key, and where that starts
        shift = np.repeat((self.key_ends[rows] - lengths) - (ends - lengths), lengths)
        return RowBlock(
            self.keys[shift + np.arange(len(shift))],
            ends,
            self.values[rows],
            self.expiry_s[rows],
            self.event_time_ms[rows],
        )

    def key_list(self) -> list[bytes]:
        joined, ends = self.keys.tobytes(), self.key_ends.tolist()
        return [joined[start:end] for start, end in zip([0, *ends], ends, strict=False)]

    def value_list(self) -> list[bytes]:
        size, joined = self.values.shape[1], self.values.tobytes()
        return [joined[at : at + size] for at in range(0, len(joined), size)]


class FeatureStore(Protocol):
    """Bytes by key. Values are opaque: what they mean, and whether they expired, is the codec's."""

    async def get(self, keys: Sequence[bytes]) -> Sequence[bytes | None]:
        """Return one value a key, in order; None where there is none.

        Raises `Unavailable` if the database does not answer, `PartlyUnavailable` if that is so of
        some of its nodes alone.
        """

    async def put(self, keys: Sequence[bytes], values: Sequence[bytes], reader: ValueReader) -> int:
        """Write durably; return how many were not older than what was there.

        A store that forgets what has expired keeps it a tenth of its time longer, at least a
        minute, so that it is seen as expired.
        """

    async def load(self, block: RowBlock, reader: ValueReader, *, guarded: bool = True) -> int:
        """Write many rows as `put` does; where not `guarded`, a store may leave out to compare
        their event times with those of what is there.
        """

    def health(self) -> dict[str, Any]:
        """Return what people should know of its state: plain values."""

    async def close(self) -> None:
        """Let go of the database. No-op if closed."""
