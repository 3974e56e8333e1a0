"""Features in Cassandra or ScyllaDB: a table per entity, a partition per key, a row per group.

`kirana.cassandra.url` describes the URLs. `kirana apply` makes the keyspace and the tables.

A row is the value of one group, as one blob. Cassandra keeps the value with the greatest timestamp,
which is the event time of the row, and does not say whether a write was older than the stored row.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from kirana.breaker import Breaker
from kirana.cassandra.errors import FAILURES, message_of, unavailable
from kirana.cassandra.requests import Rows
from kirana.cassandra.session import CassandraSession, Statement
from kirana.cassandra.url import CassandraUrl
from kirana.codecs.rows import Tier
from kirana.errors import Unavailable
from kirana.stores.base import PAGE_ROWS, PROBE, ping_by_read
from kirana.stores.cassandra_tables import parts_of, table_name
from kirana.stores.clock import StoreClock, clock_answers
from kirana.stores.drop_times import drop_at_ms
from kirana.stores.durability import Durability, of_cassandra
from kirana.stores.rows import RowBlock, RowKeys, StoredRows, WalkedRow, WalkPage, Written
from kirana.stores.walks import invalid_cursor, require_limit
from kirana.urls import usable

MAX_TTL_S = 20 * 365 * 24 * 3_600
"""The greatest TTL that Cassandra accepts, in seconds."""

LAST_DROP_S = 2**31 - 2 - 86_400
"""The latest time at which a Cassandra before 5.0 can drop a row, in Unix seconds: in 2038."""

MAX_EVENT_TIME_MS = (2**63 - 2) // 1_000
"""The greatest event time whose timestamp, in microseconds, has 64 bits."""

Outcome = Rows | Exception
"""The reply to a request, or its error."""


class CassandraFeatureStore:
    """A `FeatureStore` in one keyspace."""

    embedded = False
    forgets = False

    def __init__(self, url: CassandraUrl) -> None:
        self._name = url.name
        self._keyspace = url.keyspace
        self._breaker = Breaker(self._name)
        self._session = CassandraSession(url)
        self._closed = False
        self._clock = StoreClock(url.name, self._time_s)

    @classmethod
    def open(cls, url: str, *, setting: str) -> CassandraFeatureStore:
        """Open the store at a URL, without connecting yet.

        Raise `ConfigurationError` for `setting` if the URL is not valid.
        """
        with usable(url, setting=setting):
            return cls(CassandraUrl.parse(url))

    async def read(self, wanted: Sequence[RowKeys]) -> list[StoredRows]:
        """Read one partition per key. Groups with the same entity and keys are read together."""
        results: list[StoredRows] = [StoredRows([])] * len(wanted)
        for positions in _shared_keys(wanted):
            rows = [wanted[position] for position in positions]
            read = self._read_one(rows[0]) if len(rows) == 1 else self._read_together(rows)
            for position, stored in zip(positions, await read, strict=True):
                results[position] = stored
        return results

    async def _read_one(self, rows: RowKeys) -> list[StoredRows]:
        if rows.group == PROBE.group:
            return [await self._probe()]
        entity, group = parts_of(rows.group)
        cql = f'SELECT value FROM {self._table(entity)} WHERE key = ? AND "group" = ?'
        outcomes = await self._outcomes(Statement(cql), [(key, group) for key in rows.keys])
        values = [
            None if isinstance(reply, Exception) or not reply else reply[0][0] for reply in outcomes
        ]
        return [_stored_rows(outcomes, values)]

    async def _probe(self) -> StoredRows:
        """Read a row that each node has, also before the tables are made."""
        outcomes = await self._outcomes(
            Statement("SELECT key FROM system.local", of_node=True), [()]
        )
        return _stored_rows(outcomes, [None])

    def _table(self, entity: str) -> str:
        return table_name(self._keyspace, entity)

    async def _read_together(self, wanted: Sequence[RowKeys]) -> list[StoredRows]:
        entity = parts_of(wanted[0].group)[0]
        groups = [parts_of(rows.group)[1] for rows in wanted]
        cql = f'SELECT "group", value FROM {self._table(entity)} WHERE key = ? AND "group" IN ?'
        keys = wanted[0].keys
        outcomes = await self._outcomes(Statement(cql), [(key, groups) for key in keys])
        by_group: list[dict[str, bytes]] = [
            {} if isinstance(reply, Exception) else dict(reply) for reply in outcomes
        ]
        return [
            _stored_rows(outcomes, [values.get(group) for values in by_group]) for group in groups
        ]

    async def _outcomes(
        self, statement: Statement, parameters: Sequence[tuple[Any, ...]]
    ) -> list[Outcome]:
        """Run a statement for each entry of `parameters`. Return replies or errors, in order.

        If the breaker refuses the call, or no request can be sent, all outcomes are the error. The
        call counts as a failure of the cluster if all its requests have failed.
        """
        if not parameters:
            return []
        try:
            self._require_open()
            self._breaker.check()
            outcomes = await self._session.run(statement, parameters)
        except Unavailable as error:
            return [error] * len(parameters)
        except FAILURES as error:
            return [unavailable(self._name, error, self._breaker)] * len(parameters)
        errors = [outcome for outcome in outcomes if isinstance(outcome, Exception)]
        if not errors:
            self._breaker.succeeded()
            return outcomes
        if len(errors) == len(outcomes):
            reason = unavailable(self._name, errors[0], self._breaker)
        else:
            self._breaker.succeeded()
            reason = Unavailable(message_of(self._name, errors[0]))
        return [reason if isinstance(outcome, Exception) else outcome for outcome in outcomes]

    async def write(self, block: RowBlock) -> Written:
        """Write each row with its event time as the timestamp. All rows count as unknown.

        If the stored row has the same time, Cassandra decides which one stays.
        """
        await self._clock.check()
        entity, group = parts_of(block.group)
        cql = (
            f'INSERT INTO {self._table(entity)} (key, "group", value) VALUES (?, ?, ?) '
            "USING TIMESTAMP ? AND TTL ?"
        )
        outcomes = await self._outcomes(Statement(cql, writes=True), _parameters(block, group))
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                raise outcome
        return Written(0, unknown=len(block))

    async def _time_s(self) -> float:
        """Return the time of a node, in Unix seconds."""
        time_of_node = Statement("SELECT toUnixTimestamp(now()) FROM system.local", of_node=True)
        (outcome,) = await self._outcomes(time_of_node, [()])
        milliseconds: int = _found(outcome)[0][0]
        return milliseconds / 1_000

    async def load(self, block: RowBlock, *, guarded: bool = True) -> Written:
        """Write rows as `write` does: Cassandra compares event times in any case."""
        return await self.write(block)

    async def remove(self, rows: RowKeys) -> int:
        """Remove rows, and return how many of them existed.

        Cassandra keeps the time of the removed row for some days (`gc_grace_seconds`). Until then,
        a later write of the same key is stored only if its event time is greater.
        """
        entity, group = parts_of(rows.group)
        where = f'{self._table(entity)} WHERE key = ? AND "group" = ?'
        find = Statement(f"SELECT WRITETIME(value) FROM {where}", writes=True)
        keys = [(key, group) for key in rows.keys]
        found = [_found(outcome) for outcome in await self._outcomes(find, keys)]
        removed = [
            (replies[0][0], *key) for key, replies in zip(keys, found, strict=True) if replies
        ]
        cql = f'DELETE FROM {self._table(entity)} USING TIMESTAMP ? WHERE key = ? AND "group" = ?'
        for outcome in await self._outcomes(Statement(cql, writes=True), removed):
            _found(outcome)
        return len(removed)

    async def walk(self, entity: str, cursor: str = "", *, limit: int = PAGE_ROWS) -> WalkPage:
        """Return up to `limit` rows, in the order of Cassandra's tokens.

        The cursor is the entity and the driver's paging state.
        """
        require_limit(limit)
        state = _paging_state(entity, cursor)
        cql = f'SELECT key, "group", value FROM {self._table(entity)}'
        self._require_open()
        self._breaker.check()
        try:
            rows, next_state = await self._session.page(cql, limit, state)
        except FAILURES as error:
            if cursor and "paging state" in str(error):
                raise invalid_cursor(cursor) from None
            raise unavailable(self._name, error, self._breaker) from error
        self._breaker.succeeded()
        walked = [WalkedRow(f"{entity}.{group}", key, value) for key, group, value in rows]
        return WalkPage(walked, _cursor(entity, next_state))

    async def ping(self) -> bool:
        """Return whether the cluster answers a read, and what time it is."""
        return await ping_by_read(self) and await clock_answers(self._clock)

    async def durability(self) -> Durability:
        """Return what the keyspace and a node's settings say. ScyllaDB has no such settings."""
        keyspaces = Statement(
            "SELECT replication FROM system_schema.keyspaces WHERE keyspace_name = ?", of_node=True
        )
        (outcome,) = await self._outcomes(keyspaces, [(self._keyspace,)])
        rows = _found(outcome)
        if not rows:
            raise Unavailable(f"{self._name} has no keyspace: run 'kirana apply'")
        replication: dict[str, str] = dict(rows[0][0])
        copies = [int(count) for name, count in replication.items() if name != "class"]
        settings = Statement("SELECT value FROM system_views.settings WHERE name = ?", of_node=True)
        (outcome,) = await self._outcomes(settings, [("commitlog_sync",)])
        sync = "" if isinstance(outcome, Exception) or not outcome else str(outcome[0][0])
        return of_cassandra(self._name, sync, min(copies, default=1))

    def health(self) -> dict[str, Any]:
        """Return the URL without its password, the state of the breaker, and what is wrong."""
        breaker = self._breaker.health()
        return {"store": self._name, "breaker": breaker, **self._clock.health()}

    async def close(self) -> None:
        """Close the connections to the cluster. No-op if already closed."""
        self._closed = True
        await self._session.close()

    def _require_open(self) -> None:
        if self._closed:
            raise Unavailable(f"{self._name} is closed")


def _shared_keys(wanted: Sequence[RowKeys]) -> list[list[int]]:
    """Return the positions of `wanted`, in lists of groups with the same entity and keys."""
    shared: list[list[int]] = []
    for position, rows in enumerate(wanted):
        for positions in shared:
            first = wanted[positions[0]]
            same_entity = parts_of(first.group)[0] == parts_of(rows.group)[0]
            if same_entity and (first.keys is rows.keys or first.keys == rows.keys):
                positions.append(position)
                break
        else:
            shared.append([position])
    return shared


def _stored_rows(outcomes: Sequence[Outcome], values: Sequence[bytes | None]) -> StoredRows:
    """Return the result of reading rows of which some may have failed."""
    failed = np.array([isinstance(outcome, Exception) for outcome in outcomes], dtype=bool)
    if not failed.any():
        return StoredRows(values)
    reason = next(o.message for o in outcomes if isinstance(o, Unavailable))
    tier = np.where(failed, Tier.NONE, Tier.DURABLE).astype(np.uint8)
    return StoredRows(values, np.flatnonzero(failed), reason, tier)


def _parameters(block: RowBlock, group: str) -> list[tuple[str, str, bytes, int, int]]:
    """Return the parameters of the inserts of a block.

    Of rows with the same key and write order, only the last is inserted.
    """
    values = block.value_list()
    tombstones = (block.codec.write_order(value)[1] for value in values)
    times = np.minimum(block.event_time_ms, MAX_EVENT_TIME_MS).astype(np.int64).tolist()
    inserts = {
        (key, time_ms * 1_000 + is_tombstone): (value, ttl_s)
        for key, value, time_ms, is_tombstone, ttl_s in zip(
            block.key_list(), values, times, tombstones, _ttls_s(block), strict=True
        )
    }
    return [
        (key.decode(), group, value, timestamp, ttl_s)
        for (key, timestamp), (value, ttl_s) in inserts.items()
    ]


def _ttls_s(block: RowBlock) -> list[int]:
    """Return for how many seconds Cassandra keeps each row; 0 = for ever.

    A row that may be dropped already is kept for a second, so that it replaces older rows.
    """
    drop_at = drop_at_ms(block)
    left_s = np.ceil(np.minimum(drop_at / 1_000, LAST_DROP_S) - time.time()).astype(np.int64)
    ttls: list[int] = np.where(drop_at == 0, 0, np.clip(left_s, 1, MAX_TTL_S)).tolist()
    return ttls


def _found(outcome: Outcome) -> Rows:
    """Return the rows of a reply. Raise an outcome that is an error."""
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def _cursor(entity: str, state: bytes | None) -> str:
    """Return the cursor of the page that begins at a paging state; "" if there is none."""
    return f"{entity}:{base64.urlsafe_b64encode(state).decode()}" if state else ""


def _paging_state(entity: str, cursor: str) -> bytes | None:
    """Return the paging state that a cursor holds. Raise `InvalidInput` if it can't hold one."""
    if not cursor:
        return None
    of_entity, _, state = cursor.partition(":")
    try:
        decoded = base64.b64decode(state.encode(), altchars=b"-_", validate=True)
    except ValueError:
        decoded = b""
    if of_entity != entity or not decoded:
        raise invalid_cursor(cursor)
    return decoded
