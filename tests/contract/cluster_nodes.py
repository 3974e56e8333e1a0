"""Helpers for tests of a Redis Cluster: its nodes, the keys on them, writes and checks of rows."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from itertools import count, islice
from typing import Any

import numpy as np
from redis.crc import key_slot

from kirana.codecs import CODECS, Column, Status
from kirana.features import FeatureQuery
from kirana.features.service import FeatureService
from kirana.features.source import FeatureWrite
from kirana.request import RequestContext
from kirana.stores import FeatureStore, RowKeys, open_feature_store
from kirana.stores.row_keys import row_keys
from tests.contract.redis_rows import NOW_MS, row
from tests.redis_servers import RedisServers, execute
from tests.store_calls import read_values, write_rows
from tests.support import Shop

BOUND_S = 20
"""Time limit in seconds for calls that must end. It is long, because machines may be slow."""

GROUP = "product.stats"
CODEC = CODECS["packed"]
PARTIAL = (
    *("--cluster-node-timeout", "1000", "--cluster-require-full-coverage", "no"),
    # A master that has lost its last slot stays a master.
    *("--cluster-allow-replica-migration", "no"),
)
"""Options of a cluster that keeps serving slots while other slots have no node."""

SYNC_AT_ONCE = ("--repl-diskless-sync-delay", "0")
ON_DISK = ("--appendonly", "yes", "--appendfsync", "always")
SHORT = "socket_timeout=0.2&socket_connect_timeout=0.2"


def url_of(nodes: Sequence[int]) -> str:
    return "redis+cluster://" + ",".join(f"127.0.0.1:{port}" for port in nodes) + f"?{SHORT}"


def myself(node: int) -> dict[str, Any]:
    nodes = execute(node, "CLUSTER NODES").values()
    return next(entry for entry in nodes if "myself" in entry["flags"])


def ids_on(node: int, number: int, form: str = "{}") -> list[str]:
    """Return `number` product ids whose rows are on this node. Each id is an integer in `form`."""
    slots = [range(int(first), int(last) + 1) for first, last in myself(node)["slots"]]
    ids = (form.format(n) for n in count())
    ids_here = (id_ for id_ in ids if any(slot_of(id_) in slot_range for slot_range in slots))
    return [*islice(ids_here, number)]


def slot_of(id_: str) -> int:
    (key,) = row_keys(RowKeys(GROUP, [id_]))
    return int(key_slot(key))


def keys_on(node: int, number: int) -> list[bytes]:
    return row_keys(RowKeys(GROUP, ids_on(node, number)))


async def write(store: FeatureStore, keys: Sequence[bytes], step: int) -> dict[bytes, bytes]:
    """Write one row per key with the event time `NOW_MS + step`, and return the rows."""
    rows = {key: row(CODEC, f"{key!r} at {step}", NOW_MS + step) for key in keys}
    assert await write_rows(store, [*rows], [*rows.values()], CODEC) == len(rows)
    return rows


async def check(store: FeatureStore, rows: dict[bytes, bytes]) -> None:
    assert await read_values(store, [*rows, b"none"]) == [*rows.values(), None]


def replication(node: int) -> dict[str, Any]:
    fields: dict[str, Any] = execute(node, "INFO", "replication")
    return fields


@contextmanager
def frozen(servers: RedisServers, port: int) -> Iterator[None]:
    servers.process(port).send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        servers.process(port).send_signal(signal.SIGCONT)


def _request(shop: Shop) -> RequestContext:
    """Begin a request at `NOW_MS`."""
    return RequestContext.begin(shop.revision, now_ms=NOW_MS)


@asynccontextmanager
async def service_over(url: str, shop: Shop) -> AsyncIterator[FeatureService]:
    service = FeatureService(open_feature_store(url), shop.source)
    try:
        yield service
    finally:
        await service.close()


async def write_clicks(service: FeatureService, shop: Shop, ids: Sequence[str]) -> None:
    """Write one row per product. Its clicks are its position in `ids`."""
    numbers = np.arange(len(ids), dtype=np.int32)
    columns = {"clicks": Column(numbers), "ctr": Column(numbers.astype(np.float32))}
    times = np.full(len(ids), NOW_MS, dtype=np.uint64)
    await service.write(FeatureWrite(GROUP, ids, columns, times), _request(shop))


async def clicks(
    service: FeatureService, shop: Shop, ids: Sequence[str]
) -> list[tuple[Status, int]]:
    query = FeatureQuery("product", ids, columns=("stats.clicks",))
    async with asyncio.timeout(BOUND_S):
        (rows,) = await service.read([query], _request(shop))
    numbers = rows.columns["stats.clicks"].values.tolist()
    return [*zip(map(Status, rows.status["stats"].tolist()), numbers, strict=True)]
