"""A Cassandra of three nodes, each with a copy of each row, one of which is killed or frozen.

The nodes take a minute to start, so one test does all of it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from cassandra import ConsistencyLevel

from kirana.cassandra.errors import FAILURES
from kirana.cassandra.session import MAX_RECONNECT_S
from kirana.cassandra.url import CassandraUrl
from kirana.errors import Unavailable
from kirana.serving.environment import free_ports
from kirana.stores import FeatureStore, RowBlock, open_feature_store
from kirana.stores.cassandra_tables import CassandraTables
from tests.cassandra_server import CassandraServer
from tests.store_calls import TimeCodec, read_values, row
from tests.waiting import wait_until

HOSTS = ("127.0.0.1", "127.0.0.2", "127.0.0.3")
KEYS = [f"f:product.g:{n}" for n in range(200)]
OPTIONS = "data_centre=datacenter1&timeout=5"

pytestmark = pytest.mark.cassandra


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[CassandraServer]]:
    ports = free_ports(2)
    with ExitStack() as stack:
        yield [
            stack.enter_context(
                CassandraServer(tmp_path_factory.mktemp(host), host, (ports[0], ports[1]))
            )
            for host in HOSTS
        ]


class Rows:
    """Rows that are written again and again, each time with a later time. All are read back."""

    def __init__(self, store: FeatureStore) -> None:
        self._store = store
        self._time = 0

    async def write_and_read(self) -> None:
        """Write all rows, and assert that they are read back."""
        self._time += 1
        keys = [key.rpartition(":")[2] for key in KEYS]
        values = [row(self._time)] * len(keys)
        await self._store.write(RowBlock.of("product.g", TimeCodec(), keys, values))
        assert await read_values(self._store, KEYS) == values

    async def go_on(self, seconds: float) -> None:
        """Write and read for some time. No call may fail."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            await self.write_and_read()
            await asyncio.sleep(0.05)


async def test_one_node_of_three_may_be_killed_or_frozen(nodes: list[CassandraServer]) -> None:
    contacts = ",".join(node.address for node in nodes)
    url = f"cassandra://{contacts}/shop?{OPTIONS}"
    CassandraTables(CassandraUrl.parse(url)).create(["product"])
    keyspaces = "SELECT replication FROM system_schema.keyspaces WHERE keyspace_name = 'shop'"
    ((replication,),) = nodes[0].execute(keyspaces)
    assert replication["datacenter1"] == "3"
    store = open_feature_store(url)
    rows = Rows(store)
    try:
        await rows.go_on(1)
        killing = asyncio.to_thread(nodes[1].kill)
        await asyncio.gather(killing, rows.go_on(3))
        assert store.health()["breaker"]["state"] == "closed"
        # Two of three nodes are not enough for LOCAL_QUORUM if one of the two is frozen.
        nodes[2].pause()
        with pytest.raises(Unavailable):
            await rows.write_and_read()
        nodes[2].resume()
        await wait_until(lambda: succeeds(rows), "the frozen node is back")
        await asyncio.to_thread(nodes[1].start)
        await wait_until(lambda: know_each_other(nodes), "the killed node is back")
        # The driver tries a node that was away again after `MAX_RECONNECT_S`.
        await rows.go_on(2 * MAX_RECONNECT_S)
        nodes[0].pause()
        await rows.go_on(3)
        nodes[0].resume()
        await rows.go_on(1)
    finally:
        nodes[0].resume()
        nodes[2].resume()
        await store.close()


async def know_each_other(nodes: list[CassandraServer]) -> bool:
    """Return whether each node can read from all nodes."""
    query = "SELECT key FROM shop.product LIMIT 1"
    try:
        for node in nodes:
            await asyncio.to_thread(node.execute, query, ConsistencyLevel.ALL)
    except FAILURES:
        return False
    return True


async def succeeds(rows: Rows) -> bool:
    try:
        await rows.write_and_read()
    except (Unavailable, AssertionError):
        return False
    return True
