"""The `FeatureStore` protocol.

Every backend must pass `tests/contract/test_feature_store.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from kirana.stores.durability import Durability
from kirana.stores.rows import RowBlock, RowKeys, StoredRows, WalkPage, Written

PROBE = RowKeys("kirana.probe", ["probe"])
"""The key of a row that is never written. `ping_by_read` reads it."""

PAGE_ROWS = 1_000
"""Default number of rows per page of a walk."""


class FeatureStore(Protocol):
    """A database of rows, addressed by feature group and key text.

    The value of a row is bytes. The codec of the group reads the event time and the expiry from
    them.

    `embedded` is True if the store runs in this process. Reading several groups in one call then
    saves no round trip. `forgets` is True if `remove` leaves nothing behind, so that a later write
    of the same key is stored whatever its event time.

    A store with a server raises `Unavailable` for writes while the clock of this machine and that
    of the server are more than a minute apart. `clock` in its health report says so.
    """

    embedded: bool
    forgets: bool

    async def read(self, wanted: Sequence[RowKeys]) -> list[StoredRows]:
        """Return one `StoredRows` for each entry of `wanted`, in order.

        Rows that can't be read are marked as unavailable, for example because a server does not
        answer or the store is closed. No error is raised for them.
        """

    async def write(self, block: RowBlock) -> Written:
        """Write rows, except those that are older than the stored ones.

        `RowCodec.write_order` decides which of two rows is older. If a key occurs several times in
        the block, its rows are written one after the other. Of two rows with the same write order,
        the later one stays. Cassandra decides by the rows' bytes if they come in two calls.

        A store that drops expired rows keeps each row for a grace period after its expiry, so that
        reads find it expired rather than missing. The grace period is a tenth of the row's time
        to live, but at least a minute.

        Raise `Unavailable` if not all rows could be written. Some of them may have been written.
        """

    async def load(self, block: RowBlock, *, guarded: bool = True) -> Written:
        """Write many rows as `write` does, but as fast as the store can.

        If `guarded` is False, the store may skip the comparison of event times, so an older row
        may replace a newer one. Raise `Unavailable` as `write` does.
        """

    async def remove(self, rows: RowKeys) -> int:
        """Remove rows and return how many of them existed.

        No tombstones are left, so a later write of the same keys is stored whatever its event time.
        Cassandra is an exception: for some days, it stores only a row that is newer than the
        removed one.

        Raise `Unavailable` if not all rows could be removed. Some of them may have been removed.
        """

    async def walk(self, entity: str, cursor: str = "", *, limit: int = PAGE_ROWS) -> WalkPage:
        """Return a page of rows of an entity, in any order.

        `limit` is the approximate maximum number of rows in the page.
        `cursor` is "" for the first page, and the `cursor` of the previous page for any other. The
        last page has the cursor "". A page may be empty even if it is not the last. A row that
        exists during the whole walk is in at least one page, unless it moves to another node of a
        cluster. Pages may contain rows of groups and codecs that Kirana does not know.

        Raise `InvalidInput` if `cursor` can't belong to this walk or `limit` is below 1. Raise
        `Unavailable` if a page can't be read. The walk can then be continued later with the same
        cursor.
        """

    async def ping(self) -> bool:
        """Return whether the database answers. In a cluster, one node that answers is enough."""

    async def durability(self) -> Durability:
        """Return what an acknowledged write is worth. Raise `Unavailable` if it can't be known."""

    def health(self) -> dict[str, Any]:
        """Return the state of the store for health reports, in types that JSON supports."""

    async def close(self) -> None:
        """Close the connections to the database, or its files. No-op if already closed."""


async def ping_by_read(store: FeatureStore) -> bool:
    """Return whether a read of the row `PROBE` succeeds.

    Do not use this for a cluster: it would ask only the node that owns the key of this row.
    """
    (rows,) = await store.read([PROBE])
    return rows.unavailable is None
