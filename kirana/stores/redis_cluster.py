"""Features in a Redis Cluster: one string per group and key, on the node that has its slot."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import hiredis
import numpy as np
from redis.exceptions import RedisError, ResponseError

from kirana.errors import ConfigurationError, Unavailable
from kirana.redis.cluster import ClusterCall, ClusterClient
from kirana.redis.commands import delete_command, get_command, scan_command
from kirana.redis.connection import values_of
from kirana.redis.errors import FAILURES
from kirana.redis.slots import joined_slots
from kirana.redis.url import cluster_of
from kirana.stores.base import PAGE_ROWS
from kirana.stores.redis_bulk import WriteMode, load_block
from kirana.stores.redis_forget import forget_ms
from kirana.stores.redis_script import BACK_FILL, WRITE, GuardScript, script_runs
from kirana.stores.row_keys import (
    all_row_keys,
    entity_prefix,
    key_prefix,
    readable,
    row_keys,
    shared_out,
    walked_rows,
)
from kirana.stores.rows import RowBlock, RowKeys, StoredRows, Times, WalkPage, Written
from kirana.stores.walks import no_cursor, require_limit, scan_start
from kirana.urls import without_password


class RedisClusterFeatureStore:
    """See `kirana.stores.base.FeatureStore`. A call is not atomic over more than one key."""

    embedded = False

    def __init__(self, cluster: ClusterClient) -> None:
        self._cluster = cluster

    @classmethod
    def open(cls, url: str, *, setting: str) -> RedisClusterFeatureStore:
        what = without_password(url)
        try:
            client, timeout_s = cluster_of(url)
        except (ValueError, RedisError) as error:
            raise ConfigurationError(
                f"{setting}: '{what}' can't be used: {error}", field=setting
            ) from None
        return cls(ClusterClient(client, what, timeout_s))

    async def read(self, wanted: Sequence[RowKeys]) -> list[StoredRows]:
        keys = all_row_keys(wanted)
        if not keys:
            return [StoredRows([]) for _ in wanted]
        try:
            call, values = await self._values(keys)
        except Unavailable as error:
            return [StoredRows.none_of(len(rows.keys), error.message) for rows in wanted]
        answers = list(map(StoredRows, shared_out(values, wanted)))
        away = np.array(call.away, dtype=np.intp)
        if len(away):
            reason, start = self._does_not_answer(call), 0
            for at, rows in enumerate(wanted):
                stop = start + len(rows.keys)
                mine = away[(away >= start) & (away < stop)] - start
                if len(mine):
                    answers[at] = StoredRows(answers[at].values, mine, reason)
                start = stop
        return answers

    async def _values(self, keys: list[bytes]) -> tuple[ClusterCall, Sequence[bytes | None]]:
        """Return the call, and a value per key: None where there is none, or its node is away."""
        commands = list(map(get_command, keys))
        limit_s = self._cluster.limit_s
        call = await self._cluster.call(keys, commands, strings=True, within_s=limit_s)
        answers = list(call.answers)
        for at in call.away:
            answers[at] = None
        try:
            return call, values_of(answers)
        except ResponseError as error:
            raise Unavailable(f"{self._cluster.what} refuses: {error}") from error

    async def write(self, block: RowBlock) -> Written:
        stored = await self._run(WRITE, block, forget_ms(block))
        return Written(stored, len(block) - stored)

    async def back_fill(self, block: RowBlock, forget_ms: Times) -> int:
        return await self._run(BACK_FILL, block, forget_ms)

    async def _run(self, script: GuardScript, block: RowBlock, forget: Times) -> int:
        """Run a script per row: the keys of one run must be of one slot."""
        done = 0
        for rows in script_runs(block, forget):
            commands = [script.command(block.codec.name, [row]) for row in rows]
            done += await self._count([key for key, *_ in rows], commands, load=script.load)
        return done

    async def _count(
        self, keys: Sequence[bytes], commands: Sequence[bytes], *, load: bytes = b""
    ) -> int:
        """Return the sum of the answers. Raises `Unavailable` if one is missing."""
        call = await self._cluster.call(keys, commands, load=load)
        for answer in call.answers:
            if isinstance(answer, hiredis.ReplyError):
                raise Unavailable(f"{self._cluster.what} refuses: {answer}")
        if call.away:
            raise Unavailable(self._does_not_answer(call))
        return sum(call.answers)

    async def load(self, block: RowBlock, *, guarded: bool = True) -> Written:
        prefix = key_prefix(block.group).encode()
        names = np.array(await self._cluster.owners(), dtype=object)
        owners = names[joined_slots(block.keys, block.key_ends, prefix)]
        mode = WriteMode.PLAIN if not guarded and not block.turns.any() else WriteMode.GUARDED_EACH
        parts = [np.flatnonzero(owners == name) for name in sorted(set(owners.tolist()))]
        stored = await asyncio.gather(
            *(self._load_part(owners[rows[0]], block.take(rows), mode) for rows in parts)
        )
        return Written(sum(stored), len(block) - sum(stored))

    async def _load_part(self, name: str, block: RowBlock, mode: WriteMode) -> int:
        try:
            if not name:
                raise LookupError("no node has these slots")
            connection = self._cluster.maker_of(name)()
            await connection.connect()
            try:
                if mode is WriteMode.GUARDED_EACH:
                    await connection.send_packed_command(WRITE.load)
                    await connection.read_response()
                return await load_block(connection, block, forget_ms(block), mode)
            finally:
                await connection.disconnect()
        except FAILURES:
            # slots have moved, or the node is away: row by row, wherever they are now
            return (await self.write(block)).stored

    async def remove(self, rows: RowKeys) -> int:
        keys = row_keys(rows)
        return await self._count(keys, [delete_command([key]) for key in keys])

    async def walk(self, entity: str, cursor: str = "", *, limit: int = PAGE_ROWS) -> WalkPage:
        """The cursor names a node and its own cursor; the nodes are walked in order of name.

        Rows of slots that move meanwhile may be missed. Raises `InvalidInput` too if the node has
        no slots any more: another one has its rows.
        """
        require_limit(limit)
        nodes = sorted({*await self._cluster.owners()} - {""})
        name, _, at = cursor.rpartition("|")
        if cursor and name not in nodes:
            raise no_cursor(cursor)
        left = [node for node in nodes if node >= name]
        if not left:
            raise Unavailable(f"{self._cluster.what} has no node with slots")
        node = left[0]
        command = scan_command(scan_start(at), f"{entity_prefix(entity)}*", limit)
        answer = await self._cluster.ask_node(node, command)
        if isinstance(answer, hiredis.ReplyError):
            raise Unavailable(f"{self._cluster.what} refuses: {answer}")
        following, found = answer
        keys = readable(found)
        rows = walked_rows(keys, await self._whole([key.encode() for key in keys]))
        if following != b"0":
            return WalkPage(rows, f"{node}|{following.decode()}")
        return WalkPage(rows, f"{left[1]}|0" if len(left) > 1 else "")

    async def _whole(self, keys: list[bytes]) -> Sequence[bytes | None]:
        """Return a value per key. Raises `Unavailable` if a node is away."""
        if not keys:
            return []
        call, values = await self._values(keys)
        if call.away:
            raise Unavailable(self._does_not_answer(call))
        return values

    async def ping(self) -> bool:
        return await self._cluster.ping()

    def _does_not_answer(self, call: ClusterCall) -> str:
        return f"{self._cluster.what} does not answer: {call.reason}"

    def health(self) -> dict[str, Any]:
        return {"store": self._cluster.what, **self._cluster.health()}

    async def close(self) -> None:
        await self._cluster.close()
