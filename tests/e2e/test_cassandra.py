"""A running Kirana with its features in Cassandra behind Redis, each of which is killed."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kirana.codecs import CODECS
from kirana.stores import RowBlock, open_feature_store
from tests.cassandra_server import CassandraServer
from tests.e2e.environment import environment
from tests.e2e.starts import kirana_up
from tests.redis_servers import RedisServers
from tests.support import write_shop
from tests.waiting import wait_for

pytestmark = pytest.mark.redis

KEYSPACE = "shop"
KEYS = {"product_id": ["1", "2"]}
READ = {"entity": "product", "keys": KEYS, "features": ["stats.clicks"], "provenance": True}
WAREHOUSE = {"kind": "entity", "name": "warehouse", "keys": [{"name": "warehouse_id"}]}


@pytest.fixture(scope="module")
def shop_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shop(tmp_path_factory.mktemp("cassandra_shop") / "shop")


@pytest.fixture(scope="module")
def redis_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServers]:
    with RedisServers(tmp_path_factory.mktemp("hot_tier")) as servers:
        yield servers


@pytest.fixture(scope="module")
def redis_port(redis_servers: RedisServers) -> int:
    return redis_servers.start()


@pytest.fixture(scope="module")
def client(
    shop_folder: Path, cassandra: CassandraServer, redis_port: int
) -> Iterator[httpx.Client]:
    cassandra.execute(f"DROP KEYSPACE IF EXISTS {KEYSPACE}")
    stores = {
        "--features": f"cassandra://{cassandra.address}/{KEYSPACE}?timeout=10",
        "--features-hot": f"redis://127.0.0.1:{redis_port}",
    }
    options = [word for option in stores.items() for word in option]
    settings = {"KIRANA_CACHE_BYTES": "0", "KIRANA_FEATURES_HOT_BOUND_S": "2"}
    with environment(settings), kirana_up(shop_folder, *options) as served:
        yield served.client


def kirana(folder: Path, command: str, *arguments: str) -> str:
    """Run a command of Kirana for a folder, and return its output."""
    words = [sys.executable, "-m", "kirana", command, str(folder), *arguments]
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


def _tables(cassandra: CassandraServer) -> set[str]:
    query = f"SELECT table_name FROM system_schema.tables WHERE keyspace_name = '{KEYSPACE}'"
    return {row[0] for row in cassandra.execute(query)}


def _put(client: httpx.Client, clicks: list[int]) -> httpx.Response:
    return client.post("/v1/features/put", json=_body(clicks))


def _body(clicks: list[int]) -> dict[str, Any]:
    columns = {"clicks": clicks, "ctr": [0] * len(clicks)}
    return {"group": "product.stats", "keys": KEYS, "columns": columns}


def _get(client: httpx.Client) -> dict[str, Any]:
    reply: dict[str, Any] = client.post("/v1/features/get", json=READ).raise_for_status().json()
    return reply


def test_the_start_makes_a_table_for_each_entity(
    client: httpx.Client, cassandra: CassandraServer
) -> None:
    assert _tables(cassandra) == {"user", "product", "category", "user_category", "kirana"}
    assert client.get("/healthz").json()["parts"]["features"]["state"] == "ok"


def test_written_rows_are_read_back(client: httpx.Client) -> None:
    assert _put(client, [3, 4]).json() == {"written": 2, "stale": 0, "expired": 0}
    assert _get(client)["values"] == [[3], [4]]


def test_an_entity_without_a_table_is_published_with_apply_only(
    client: httpx.Client, cassandra: CassandraServer, shop_folder: Path
) -> None:
    revision = client.get("/v1/catalog").json()["revision"]
    refused = client.put("/v1/catalog/entity/warehouse", json={"object": WAREHOUSE})
    assert refused.status_code == 409
    message = refused.json()["error"]["message"]
    assert "no table for entity 'warehouse'" in message
    assert "kirana apply" in message
    assert client.get("/v1/catalog").json()["revision"] == revision
    assert "warehouse" not in (shop_folder / "shop.yaml").read_text()

    (shop_folder / "warehouse.yaml").write_text(
        "kind: entity\nname: warehouse\nkeys: [{name: warehouse_id}]\n"
    )
    kirana(shop_folder, "apply")
    assert "warehouse" in _tables(cassandra)
    assert client.put("/v1/catalog/entity/warehouse", json={"object": WAREHOUSE}).status_code == 200


def _tiers(client: httpx.Client) -> list[str | None]:
    tiers: list[str | None] = _get(client)["tier"]["stats"]
    return tiers


def test_rows_that_are_read_again_come_from_the_hot_tier(client: httpx.Client) -> None:
    assert _put(client, [4, 5]).status_code == 200
    assert _tiers(client) == ["durable"] * 2
    wait_for(lambda: _tiers(client) == ["hot"] * 2, "copies are read")
    assert _put(client, [5, 6]).status_code == 200
    assert _get(client)["values"] == [[5], [6]]

    def counted() -> bool:
        features = client.get("/healthz").json()["parts"]["features"]
        return bool(features["hot"]["rows"]["hot"] >= 2)

    # The report is that of the last check, which runs once a second.
    wait_for(counted, "the rows are counted")


def test_pushed_rows_replace_copies(client: httpx.Client, shop_folder: Path) -> None:
    wait_for(lambda: _tiers(client) == ["hot"] * 2, "copies are read")
    table = pa.table({"product_id": ["1", "2"], "clicks": [7, 8], "ctr": [0.0, 0.0]})
    pq.write_table(table, shop_folder / "product.stats.parquet")
    kirana(shop_folder, "push", str(shop_folder / "product.stats.parquet"))
    assert _get(client)["values"] == [[7], [8]]


def test_doctor_says_what_acknowledgements_are_worth(
    client: httpx.Client, shop_folder: Path
) -> None:
    output = " ".join(kirana(shop_folder, "doctor").split())
    assert "1 copy of each row, commitlog_sync: group" in output
    assert "behind redis://" in output


def test_a_row_that_is_ahead_is_not_removed_by_force(
    client: httpx.Client, cassandra: CassandraServer
) -> None:
    in_an_hour_ms = time.time_ns() // 1_000_000 + 3_600_000
    codec = CODECS["packed"]
    ahead = codec.tombstones(np.array([in_an_hour_ms], np.uint64), 2**31)[0]

    async def write() -> None:
        store = open_feature_store(f"cassandra://{cassandra.address}/{KEYSPACE}?timeout=10")
        await store.write(RowBlock.of("product.stats", codec, ["ahead"], [ahead]))
        await store.close()

    asyncio.run(write())
    forced = {"group": "product.stats", "keys": {"product_id": ["ahead", "1"]}, "force": True}
    refused = client.post("/v1/features/delete", json=forced)
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "conflict")
    assert "docs/operations.md" in refused.json()["error"]["message"]
    query = f"SELECT value FROM {KEYSPACE}.product WHERE key = 'ahead' AND \"group\" = 'stats'"
    assert cassandra.execute(query) == [(ahead,)]
    # No row was deleted, not even one that is not ahead.
    assert _get(client)["values"] == [[7], [8]]


def test_while_redis_is_away_rows_come_from_cassandra(
    client: httpx.Client, redis_servers: RedisServers, redis_port: int
) -> None:
    redis_servers.kill(redis_port)
    assert _put(client, [9, 10]).status_code == 200
    assert _get(client)["values"] == [[9], [10]]
    assert _tiers(client) == ["durable"] * 2
    assert client.get("/healthz").status_code == 200
    redis_servers.start(port=redis_port)
    wait_for(lambda: _tiers(client) == ["hot"] * 2, "copies are read again")
    assert _get(client)["values"] == [[9], [10]]


def test_a_killed_cassandra_costs_defaults_only_where_there_is_no_copy(
    client: httpx.Client, cassandra: CassandraServer
) -> None:
    wait_for(lambda: _tiers(client) == ["hot"] * 2, "copies are read")
    cassandra.kill()
    # On a busy machine, Redis may answer too late once.
    wait_for(lambda: _get(client)["values"] == [[9], [10]], "copies are served")
    other = {**READ, "keys": {"product_id": ["unread"]}}

    def unavailable() -> bool:
        reply = client.post("/v1/features/get", json=other).raise_for_status().json()
        return bool(reply["status"]["stats"] == ["unavailable"] and reply["values"] == [[0]])

    wait_for(unavailable, "a row without a copy is away")
    refused = client.post("/v1/features/put", json={**_body([1]), "keys": other["keys"]})
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "unavailable")
    wait_for(lambda: client.get("/healthz").status_code == 503, "health says it")
    cassandra.start()
    wait_for(lambda: _put(client, [11, 12]).status_code == 200, "rows are written again")
    assert _get(client)["values"] == [[11], [12]]
    wait_for(lambda: client.get("/healthz").status_code == 200, "health is well")
