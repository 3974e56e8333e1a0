"""A session with Cassandra, which connects at its first call."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from cassandra import ConsistencyLevel
from cassandra.auth import PlainTextAuthProvider
from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster, ExecutionProfile, Session
from cassandra.policies import (
    ConstantSpeculativeExecutionPolicy,
    DCAwareRoundRobinPolicy,
    ExponentialReconnectionPolicy,
    TokenAwarePolicy,
)
from cassandra.query import PreparedStatement, tuple_factory

from kirana.cassandra.requests import Parameters, Requests, Rows
from kirana.cassandra.url import CassandraUrl
from kirana.loop import retrieve_error

SPECULATION_SHARE = 0.25
"""After this share of the timeout, a request is also sent to a second node."""

MAX_RECONNECT_S = 5.0
"""The longest pause between two attempts to connect to a node that went away."""

PROTOCOL_VERSION = 4
"""ScyllaDB speaks this version of the protocol, and so does each Cassandra since 2.2."""


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement in CQL to be prepared. `writes` decides which consistency it gets.

    A statement `of_node` reads a system table, of which each node has its own.
    """

    cql: str
    writes: bool = False
    of_node: bool = False


@dataclass(frozen=True, slots=True)
class _Connected:
    session: Session
    requests: Requests


class CassandraSession:
    """A session with the cluster that a URL names.

    Calls raise the exceptions in `kirana.cassandra.errors.FAILURES`. If connecting fails, the next
    call tries again.
    """

    def __init__(self, url: CassandraUrl) -> None:
        self._url = url
        self._connecting: asyncio.Task[_Connected] | None = None
        """The last attempt to connect, which is done if it has succeeded or failed."""
        self._prepared: dict[Statement, PreparedStatement] = {}

    async def run(self, statement: Statement, parameters: Parameters) -> list[Rows | Exception]:
        """Run a statement once per entry of `parameters`. Return replies or errors, in order."""
        connected = await self._connect()
        prepared = self._prepared.get(statement)
        if prepared is None:
            prepared = await asyncio.to_thread(self._prepare, connected.session, statement)
            self._prepared[statement] = prepared
        return await connected.requests.run(prepared, parameters)

    async def page(self, cql: str, rows: int, state: bytes | None) -> tuple[Rows, bytes | None]:
        """Return a page of the rows of a query, and the state from which the next page begins.

        Both states are None at the ends of the query. The state is the driver's.
        """
        session = (await self._connect()).session

        def fetch() -> tuple[Rows, bytes | None]:
            statement = self._prepare(session, Statement(cql))
            statement.fetch_size = rows
            result = session.execute(statement, paging_state=state)
            return list(result.current_rows), result.paging_state

        return await asyncio.to_thread(fetch)

    async def _connect(self) -> _Connected:
        """Return the connected session. Concurrent callers share one attempt to connect.

        A caller that is cancelled does not end the attempt, because its thread would go on.
        """
        if self._connecting is None or (
            self._connecting.done() and self._connecting.exception() is not None
        ):
            self._connecting = asyncio.create_task(asyncio.to_thread(self._open))
            self._connecting.add_done_callback(retrieve_error)
        return await asyncio.shield(self._connecting)

    def _open(self) -> _Connected:
        cluster = cluster_of(self._url)
        try:
            session = cluster.connect()
        except BaseException:
            cluster.shutdown()
            raise
        return _Connected(session, Requests(session, self._url.in_flight))

    def _prepare(self, session: Session, statement: Statement) -> PreparedStatement:
        prepared = session.prepare(statement.cql)
        prepared.consistency_level = getattr(ConsistencyLevel, self._level(statement))
        # Each write carries its time, so it may be repeated.
        prepared.is_idempotent = True
        return prepared

    def _level(self, statement: Statement) -> str:
        if statement.of_node:
            return "LOCAL_ONE"
        return self._url.write_consistency if statement.writes else self._url.read_consistency

    async def close(self) -> None:
        """Close all connections, in a thread. No-op if there are none."""
        connecting, self._connecting = self._connecting, None
        self._prepared.clear()
        if connecting is None:
            return
        await asyncio.wait([connecting])
        if connecting.exception() is None:
            connected = connecting.result()
            connected.requests.close()
            await asyncio.to_thread(connected.session.cluster.shutdown)


def cluster_of(url: CassandraUrl) -> Cluster:
    """Return the driver's object for a cluster. It does not connect yet."""
    policy = TokenAwarePolicy(DCAwareRoundRobinPolicy(url.data_centre or ""))
    profile = ExecutionProfile(
        load_balancing_policy=policy,
        request_timeout=url.timeout_s,
        row_factory=tuple_factory,
        speculative_execution_policy=ConstantSpeculativeExecutionPolicy(
            url.timeout_s * SPECULATION_SHARE, 1
        ),
    )
    options: dict[str, Any] = {}
    if url.username is not None:
        options["auth_provider"] = PlainTextAuthProvider(url.username, url.password or "")
    if url.tls is not None:
        options["ssl_context"] = url.tls.context()
    return Cluster(
        contact_points=list(url.hosts),
        port=url.hosts[0][1],
        execution_profiles={EXEC_PROFILE_DEFAULT: profile},
        protocol_version=PROTOCOL_VERSION,
        connect_timeout=max(url.timeout_s, 1.0),
        control_connection_timeout=max(url.timeout_s, 1.0),
        reconnection_policy=ExponentialReconnectionPolicy(0.5, MAX_RECONNECT_S),
        **options,
    )
