"""What a feature store does; every backend passes `tests/contract/test_feature_store.py`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from kirana.stores.rows import RowBlock, RowKeys, StoredRows, Times, WalkPage, Written

PROBE = RowKeys("kirana.probe", [""])
"""A row that nobody writes."""

PAGE_ROWS = 1_000


class FeatureStore(Protocol):
    """Rows by group and key text. Values are opaque: what they mean, and whether they expired, is
    the codec's.

    `embedded` is whether it answers in this process, and nothing is gained by asking all at once.
    """

    embedded: bool

    async def read(self, wanted: Sequence[RowKeys]) -> list[StoredRows]:
        """Return one answer per group that is wanted, in order.

        Never raises for a server that does not answer: its rows are `unavailable`.
        """

    async def write(self, block: RowBlock) -> Written:
        """Write rows durably; a row that is older than what is there leaves it alone.

        A store that forgets what has expired keeps it a tenth of its time longer, at least a
        minute, so that it is seen as expired.

        Raises `Unavailable` if rows could not be written; others of the block may have been.
        """

    async def load(self, block: RowBlock, *, guarded: bool = True) -> Written:
        """Write many rows as `write` does, as fast as possible.

        If not `guarded`, a store may skip the comparison with the event times that are there.
        """

    async def back_fill(self, block: RowBlock, forget_ms: Times) -> int:
        """Keep copies of rows that a slower tier had; return how many were kept.

        A copy loses to a row that is newer. If the row that is there has the event time of the copy
        and other bytes, neither is known to be the truth, and none stays. The store may forget the
        copies at `forget_ms` (Unix ms, one per row; 0 = never).
        """

    async def remove(self, rows: RowKeys) -> int:
        """Remove rows, without tombstones; return how many were there.

        An older write that comes later is stored.
        """

    async def walk(self, entity: str, cursor: str = "", *, limit: int = PAGE_ROWS) -> WalkPage:
        """Return a page of all rows of an entity, about `limit` of them, in any order.

        A row that is there from the first page to the last is in at least one page. Rows of an
        unknown group or codec are in it too. Raises `InvalidInput` for what is no cursor, and
        `Unavailable` if a server does not answer: the walk goes on from the same cursor.
        """

    async def ping(self) -> bool:
        """Whether the database answers; of several nodes, whether any of them does."""

    def health(self) -> dict[str, Any]:
        """Return what people should know of its state: plain values."""

    async def close(self) -> None:
        """Let go of the database. No-op if closed."""


async def ping_by_read(store: FeatureStore) -> bool:
    """Whether a store of one node answers."""
    (answer,) = await store.read([PROBE])
    return answer.unavailable is None
