"""Features in one Redis server, or in the master that Redis Sentinel names: one string per row.

Needs Redis 6.2 or newer, or a compatible server. `kirana.redis.url` describes the URLs. The store
for a Redis Cluster is in `kirana.stores.redis_cluster`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from kirana.breaker import Breaker
from kirana.errors import ConfigurationError, Unavailable
from kirana.redis.commands import delete_command, mget_command, scan_command
from kirana.redis.connection import ARRAY
from kirana.redis.errors import FAILURES, is_error, unavailable
from kirana.redis.shared_connection import SharedConnection
from kirana.redis.url import call_limit_s, client_of
from kirana.stores.base import PAGE_ROWS, ping_by_read
from kirana.stores.drop_times import drop_at_ms
from kirana.stores.redis_bulk import WriteMode, load_block
from kirana.stores.redis_script import BACK_FILL, WRITE, GuardScript, script_runs
from kirana.stores.row_keys import (
    decoded_keys,
    entity_prefix,
    key_prefix,
    row_keys,
    split_by_group,
    walked_rows,
)
from kirana.stores.rows import RowBlock, RowKeys, StoredRows, Times, WalkPage, Written
from kirana.stores.walks import require_limit, scan_start
from kirana.urls import without_password

T = TypeVar("T")

MAX_ATTEMPTS = 4
"""Maximum number of times that one command is sent.

The former and the new master may both lack the script, so each of them may need two attempts.
"""


class RedisFeatureStore:
    """A `FeatureStore` in one Redis server.

    `write` and `back_fill` run a script for each batch of at most `GUARDED_AT_ONCE` rows. Redis
    runs no other command during a script. A call with several batches is not atomic.
    """

    embedded = False

    def __init__(
        self, client: Redis, url: str, timeout_s: float, sentinels: Sequence[Redis] = ()
    ) -> None:
        """Use `client`, which finds the master through `sentinels` if there are any.

        `timeout_s` limits the wait for one reply. A call may take longer, because it may have to
        find the server first (see `call_limit_s`).
        """
        self._client: Any = client
        self._sentinels = sentinels
        self._name = without_password(url)
        self._breaker = Breaker(self._name)
        connect = client.connection_pool.make_connection
        self._connection = SharedConnection(connect, call_limit_s(timeout_s), self._breaker.failed)

    @classmethod
    def open(cls, url: str, *, setting: str) -> RedisFeatureStore:
        """Open the store at a Redis URL, without connecting yet.

        Raise `ConfigurationError` for `setting` if the URL is not valid.
        """
        try:
            client, sentinels, timeout_s = client_of(url)
        except (ValueError, RedisError) as error:
            raise ConfigurationError(
                f"{setting}: '{without_password(url)}' can't be used: {error}", field=setting
            ) from None
        return cls(client, url, timeout_s, sentinels)

    async def read(self, wanted: Sequence[RowKeys]) -> list[StoredRows]:
        """Read all rows with one `MGET`. If this fails, all rows are unavailable."""
        if not any(rows.keys for rows in wanted):
            return [StoredRows([]) for _ in wanted]
        try:
            values = await self._with_breaker(lambda: self._read_values(wanted))
        except Unavailable as error:
            return [StoredRows.all_unavailable(len(rows.keys), error.message) for rows in wanted]
        return list(map(StoredRows, split_by_group(values, wanted)))

    async def _read_values(self, wanted: Sequence[RowKeys]) -> Sequence[bytes | None]:
        command = mget_command([(key_prefix(rows.group), rows.keys) for rows in wanted])
        values = await self._connection.values(command, ARRAY)
        count = sum(len(rows.keys) for rows in wanted)
        if len(values) != count:
            # The values can't be matched with their keys.
            raise ConnectionError(f"the reply has {len(values)} values for {count} keys")
        return values

    async def write(self, block: RowBlock) -> Written:
        """Write rows in batches of `GUARDED_AT_ONCE`, each by one run of the script `WRITE`."""
        stored = await self._run(WRITE, block, drop_at_ms(block))
        return Written(stored, len(block) - stored)

    async def back_fill(self, block: RowBlock, drop_at_ms: Times) -> int:
        """Store copies of rows that are missing or older here. Redis drops them at `drop_at_ms`."""
        return await self._run(BACK_FILL, block, drop_at_ms)

    async def _run(self, script: GuardScript, block: RowBlock, drop_times: Times) -> int:
        """Run a script over all rows, in batches. Return how many rows it stored."""
        total = 0
        for rows in script_runs(block, drop_times):
            command = script.command(block.codec.name, rows)
            total += await self._with_breaker(
                lambda command=command: self._send(command, script.load)  # type: ignore[misc]
            )
        return total

    async def _send(self, command: bytes, load: bytes | None = None) -> int:
        """Send a command whose reply is a number. Return the number.

        If the command runs a script, `load` is the command that loads the script. It is sent if
        the server lacks the script. Raise `ResponseError` if the last reply is not a number.
        """
        for _ in range(MAX_ATTEMPTS):
            (reply,) = await self._connection.request(command, 1)
            if load is not None and is_error(reply, "NOSCRIPT"):
                # For example, the server has restarted, or was a replica until now.
                (reply,) = await self._connection.request(load, 1)
                if is_error(reply):
                    break
            elif not is_error(reply, "READONLY") or not self._connection.reconnect():
                # A former master replies READONLY. Send the command again only over a new
                # connection. With Sentinel, the new connection leads to the current master.
                break
        if not isinstance(reply, int):
            raise ResponseError(str(reply))
        return reply

    async def load(self, block: RowBlock, *, guarded: bool = True) -> Written:
        """Write rows in a pipeline over a separate connection.

        If `guarded` is False, rows are written with plain `SET` commands. The exception is a block
        that takes several rounds (see `RowBlock.rounds`): it is written as if `guarded` were True.
        """
        mode = WriteMode.PLAIN if not guarded and not block.rounds.any() else WriteMode.GUARDED
        if mode is WriteMode.GUARDED:
            await self._with_breaker(lambda: self._client.script_load(WRITE.source))
        stored = await self._with_breaker(lambda: self._load(block, mode))
        return Written(stored, len(block) - stored)

    async def _load(self, block: RowBlock, mode: WriteMode) -> int:
        pool = self._client.connection_pool
        connection = await pool.get_connection()
        try:
            return await load_block(connection, block, drop_at_ms(block), mode)
        finally:
            await pool.release(connection)

    async def remove(self, rows: RowKeys) -> int:
        """Remove rows with one `UNLINK`, and return how many of them existed."""
        if not rows.keys:
            return 0
        command = delete_command(row_keys(rows))
        return await self._with_breaker(lambda: self._send(command))

    async def walk(self, entity: str, cursor: str = "", *, limit: int = PAGE_ROWS) -> WalkPage:
        """Return the rows whose keys are in one reply to `SCAN`. The cursor is that of `SCAN`."""
        require_limit(limit)
        command = scan_command(scan_start(cursor), f"{entity_prefix(entity)}*", limit)
        next_cursor, keys = await self._with_breaker(lambda: self._scan(command))
        rows = walked_rows(keys, await self._with_breaker(lambda: self._values_of(keys)))
        return WalkPage(rows, "" if next_cursor == b"0" else next_cursor.decode())

    async def _scan(self, command: bytes) -> tuple[bytes, list[str]]:
        """Send a `SCAN` command. Return its next cursor, and the keys that it listed."""
        (reply,) = await self._connection.request(command, 1)
        if is_error(reply):
            raise ResponseError(str(reply))
        next_cursor, keys = reply
        return next_cursor, decoded_keys(keys)

    async def _values_of(self, keys: list[str]) -> Sequence[bytes | None]:
        return await self._connection.values(mget_command([("", keys)]), ARRAY) if keys else []

    async def _with_breaker(self, call: Callable[[], Awaitable[T]]) -> T:
        """Call `call` and return its result. Raise `Unavailable` for any of `FAILURES`.

        If the breaker refuses the call, raise `Unavailable` without it.
        """
        self._breaker.check()
        try:
            result = await call()
        except FAILURES as error:
            raise unavailable(self._name, error, self._breaker) from error
        self._breaker.succeeded()
        return result

    async def ping(self) -> bool:
        """Return whether the server answers a read."""
        return await ping_by_read(self)

    def health(self) -> dict[str, Any]:
        """Return the URL without its password, and the state of the breaker."""
        return {"store": self._name, "breaker": self._breaker.health()}

    async def close(self) -> None:
        """Close the connections to the server and its Sentinels. No-op if already closed."""
        await self._connection.close()
        for client in (self._client, *self._sentinels):
            await client.aclose()
