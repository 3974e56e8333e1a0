"""Features in a Redis Cluster: one string per row, on the node that owns the slot of its key."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np

from kirana.errors import Unavailable
from kirana.redis.cluster import ClusterClient
from kirana.redis.cluster_commands import (
    get_values,
    reply_of_node,
    sum_of_replies,
    time_of_cluster,
)
from kirana.redis.commands import delete_command, scan_command
from kirana.redis.errors import FAILURES
from kirana.redis.servers import PERSISTENCE, config_command, setting_of
from kirana.redis.slots import joined_slots
from kirana.stores.base import PAGE_ROWS
from kirana.stores.clock import StoreClock, clock_answers
from kirana.stores.drop_times import drop_at_ms
from kirana.stores.durability import Durability, of_redis
from kirana.stores.redis_bulk import WriteMode, load_block
from kirana.stores.redis_script import WRITE, row_batches
from kirana.stores.row_keys import (
    all_row_keys,
    decoded_keys,
    entity_prefix,
    key_prefix,
    row_keys,
    split_by_group,
    walked_rows,
)
from kirana.stores.rows import RowBlock, RowKeys, StoredRows, WalkPage, Written
from kirana.stores.walks import invalid_cursor, require_limit, scan_start


class RedisClusterFeatureStore:
    """A `FeatureStore` in a Redis Cluster.

    Each row is written atomically. A call with several rows is not atomic.
    """

    embedded = False
    forgets = True

    def __init__(self, cluster: ClusterClient) -> None:
        self._cluster = cluster
        self._clock = StoreClock(cluster.name, lambda: time_of_cluster(cluster))

    @classmethod
    def open(cls, url: str, *, setting: str) -> RedisClusterFeatureStore:
        """Open the store at a `redis+cluster://` URL, without connecting yet.

        Raise `ConfigurationError` for `setting` if the URL is not valid.
        """
        return cls(ClusterClient.open(url, setting=setting))

    async def read(self, wanted: Sequence[RowKeys]) -> list[StoredRows]:
        """Read from all nodes at once. If a node does not answer, only its rows are unavailable.

        All rows are unavailable if a node refuses a command, if the owners of the slots can't be
        found, or if the store is closed.
        """
        keys = all_row_keys(wanted)
        if not keys:
            return [StoredRows([]) for _ in wanted]
        try:
            values, unanswered, reason = await get_values(self._cluster, keys)
        except Unavailable as error:
            return [StoredRows.all_unavailable(len(rows.keys), error.message) for rows in wanted]
        results = list(map(StoredRows, split_by_group(values, wanted)))
        missing = np.array(unanswered, dtype=np.intp)
        if len(missing):
            start = 0
            for i, rows in enumerate(wanted):
                stop = start + len(rows.keys)
                unavailable = missing[(missing >= start) & (missing < stop)] - start
                if len(unavailable):
                    results[i] = StoredRows(results[i].values, unavailable, reason)
                start = stop
        return results

    async def write(self, block: RowBlock) -> Written:
        """Write rows with one run of the script `WRITE` per row.

        One run over several rows would fail if their keys had different slots.
        """
        await self._clock.check()
        stored = 0
        for rows in row_batches(block, drop_at_ms(block)):
            commands = [WRITE.command(block.codec.name, [row]) for row in rows]
            keys = [key for key, *_ in rows]
            stored += await sum_of_replies(self._cluster, keys, commands, WRITE.load)
        return Written(stored, len(block) - stored)

    async def load(self, block: RowBlock, *, guarded: bool = True) -> Written:
        """Write rows to all nodes at once, in one pipeline per node.

        If `guarded` is False, rows are written with plain `SET` commands. The exception is a block
        that takes several rounds (see `RowBlock.rounds`): it is written as if `guarded` were True.
        """
        await self._clock.check()
        prefix = key_prefix(block.group).encode()
        owner_of_slot = np.array(await self._cluster.owners(), dtype=object)
        owners = owner_of_slot[joined_slots(block.keys, block.key_ends, prefix)]
        mode = WriteMode.PLAIN if not guarded and not block.rounds.any() else WriteMode.GUARDED_EACH
        names = sorted(set(owners.tolist()))
        stored = await asyncio.gather(
            *(
                self._load_node(name, block.select(np.flatnonzero(owners == name)), mode)
                for name in names
            )
        )
        return Written(sum(stored), len(block) - sum(stored))

    async def _load_node(self, name: str, block: RowBlock, mode: WriteMode) -> int:
        """Write rows to the node `name`, and return how many were stored.

        `name` is "" if no node owns the slots of the rows. If the rows can't be written to the
        node, write them as `write` does.
        """
        try:
            if not name:
                raise LookupError("no node owns the slots of these keys")
            connection = self._cluster.connection_factory(name)()
            await connection.connect()
            try:
                if mode is WriteMode.GUARDED_EACH:
                    await connection.send_packed_command(WRITE.load)
                    await connection.read_response()
                return await load_block(connection, block, drop_at_ms(block), mode)
            finally:
                await connection.disconnect()
        except FAILURES:
            # For example, a slot has moved. `write` sends each row to the owner of its slot.
            return (await self.write(block)).stored

    async def remove(self, rows: RowKeys) -> int:
        """Remove rows with one `UNLINK` per row, and return how many of them existed."""
        keys = row_keys(rows)
        return await sum_of_replies(self._cluster, keys, [delete_command([key]) for key in keys])

    async def walk(self, entity: str, cursor: str = "", *, limit: int = PAGE_ROWS) -> WalkPage:
        """Return the rows whose keys are in one node's reply to one `SCAN`.

        Nodes are scanned in the order of their names. The cursor of the walk holds the name of a
        node and the cursor of its `SCAN`. A row whose slot moves during the walk may be missed.

        Raise `InvalidInput` also if the node of `cursor` owns no slots any more. Its rows are on
        other nodes now, so the walk must start again.
        """
        require_limit(limit)
        nodes = sorted({*await self._cluster.owners()} - {""})
        name, _, scan_cursor = cursor.rpartition("|")
        if cursor and name not in nodes:
            raise invalid_cursor(cursor)
        remaining = [node for node in nodes if node >= name]
        if not remaining:
            raise Unavailable(f"{self._cluster.name} has no node with slots")
        node = remaining[0]
        command = scan_command(scan_start(scan_cursor), f"{entity_prefix(entity)}*", limit)
        next_cursor, listed = await reply_of_node(self._cluster, node, command)
        keys = decoded_keys(listed)
        rows = walked_rows(keys, await self._all_values([key.encode() for key in keys]))
        if next_cursor != b"0":
            return WalkPage(rows, f"{node}|{next_cursor.decode()}")
        return WalkPage(rows, f"{remaining[1]}|0" if len(remaining) > 1 else "")

    async def _all_values(self, keys: list[bytes]) -> Sequence[bytes | None]:
        """Return one value per key, None if there is no row.

        Raise `Unavailable` if a value can't be read.
        """
        if not keys:
            return []
        values, missing, reason = await get_values(self._cluster, keys)
        if missing:
            raise Unavailable(reason)
        return values

    async def ping(self) -> bool:
        """Return whether at least one node answers, and what time it is."""
        return await self._cluster.ping() and await clock_answers(self._clock)

    async def durability(self) -> Durability:
        """Return what the settings of one node say."""
        node = min({*await self._cluster.owners()} - {""}, default="")
        settings = [
            setting_of(await reply_of_node(self._cluster, node, config_command(name)))
            for name in PERSISTENCE
        ]
        return of_redis(self._cluster.name, *settings)

    def health(self) -> dict[str, Any]:
        """Return the URL without its password, and the state of all nodes together.

        See `ClusterClient.health`.
        """
        return {"store": self._cluster.name, **self._cluster.health(), **self._clock.health()}

    async def close(self) -> None:
        """Close the connections to all nodes. No-op if already closed."""
        await self._cluster.close()
