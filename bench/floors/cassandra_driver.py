"""Cassandra without Kirana: the driver's own concurrent execution of prepared statements."""

from __future__ import annotations

import time
from collections.abc import Sequence

from cassandra import ConsistencyLevel
from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster, ExecutionProfile
from cassandra.concurrent import execute_concurrent_with_args
from cassandra.query import tuple_factory

CONCURRENCIES = (25, 50, 100, 200, 400)


class Driver:
    """The driver at one contact point. `concurrency` requests wait for replies at a time."""

    def __init__(self, port: int) -> None:
        profile = ExecutionProfile(row_factory=tuple_factory, request_timeout=30)
        self._cluster = Cluster(
            ["127.0.0.1"],
            port=port,
            protocol_version=4,
            execution_profiles={EXEC_PROFILE_DEFAULT: profile},
        )
        self._session = self._cluster.connect()
        self.concurrency = 100

    def choose_concurrency(self, cql: str, parameters: Sequence[Sequence[object]]) -> None:
        """Keep the concurrency that is fastest for these requests."""
        seconds = {}
        for self.concurrency in CONCURRENCIES:
            self.run(cql, parameters)
            start = time.perf_counter()
            for _ in range(3):
                self.run(cql, parameters)
            seconds[self.concurrency] = time.perf_counter() - start
        self.concurrency = min(seconds, key=lambda concurrency: seconds[concurrency])

    def run(self, cql: str, parameters: Sequence[Sequence[object]]) -> list[object]:
        """Run a statement once per entry of `parameters`, and return the rows of each."""
        prepared = self._session.prepare(cql)
        prepared.consistency_level = ConsistencyLevel.LOCAL_QUORUM
        results = execute_concurrent_with_args(
            self._session, prepared, parameters, concurrency=self.concurrency
        )
        return [list(result) for _, result in results]

    def close(self) -> None:
        self._cluster.shutdown()
