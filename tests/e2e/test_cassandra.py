"""A running Kirana with its features in a real Cassandra: tables, rows, and a killed server."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.cassandra_server import CassandraServer
from tests.e2e.starts import kirana_up
from tests.support import write_shop
from tests.waiting import wait_for

KEYSPACE = "shop"
KEYS = {"product_id": ["1", "2"]}
READ = {"entity": "product", "keys": KEYS, "features": ["stats.clicks"], "provenance": True}
WAREHOUSE = {"kind": "entity", "name": "warehouse", "keys": [{"name": "warehouse_id"}]}


@pytest.fixture(scope="module")
def shop_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shop(tmp_path_factory.mktemp("cassandra_shop") / "shop")


@pytest.fixture(scope="module")
def client(shop_folder: Path, cassandra: CassandraServer) -> Iterator[httpx.Client]:
    cassandra.execute(f"DROP KEYSPACE IF EXISTS {KEYSPACE}")
    features = f"cassandra://{cassandra.address}/{KEYSPACE}?timeout=10"
    with kirana_up(shop_folder, "--features", features) as served:
        yield served.client


def _tables(cassandra: CassandraServer) -> set[str]:
    query = f"SELECT table_name FROM system_schema.tables WHERE keyspace_name = '{KEYSPACE}'"
    return {row[0] for row in cassandra.execute(query)}


def _put(client: httpx.Client, clicks: list[int]) -> httpx.Response:
    body = {"group": "product.stats", "keys": KEYS, "columns": {"clicks": clicks, "ctr": [0, 0]}}
    return client.post("/v1/features/put", json=body)


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
    command = [sys.executable, "-m", "kirana", "apply", str(shop_folder)]
    subprocess.run(command, check=True, capture_output=True)
    assert "warehouse" in _tables(cassandra)
    assert client.put("/v1/catalog/entity/warehouse", json={"object": WAREHOUSE}).status_code == 200


def test_a_killed_server_costs_defaults_and_no_rows(
    client: httpx.Client, cassandra: CassandraServer
) -> None:
    assert _put(client, [5, 6]).status_code == 200
    cassandra.kill()
    wait_for(lambda: _get(client)["status"]["stats"] == ["unavailable"] * 2, "the rows are away")
    assert _get(client)["values"] == [[0], [0]]
    refused = _put(client, [7, 8])
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "unavailable")
    wait_for(lambda: client.get("/healthz").status_code == 503, "health says it")
    cassandra.start()
    wait_for(lambda: _get(client)["status"]["stats"] == ["ok"] * 2, "the rows are back")
    assert _get(client)["values"] == [[5], [6]]
    wait_for(lambda: client.get("/healthz").status_code == 200, "health is well")
