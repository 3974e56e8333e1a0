"""A running Kirana with its features in a real Redis and its catalog in a real ZooKeeper."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.e2e.starts import kirana_up
from tests.redis_servers import RedisServers
from tests.support import SHOP, write_shop
from tests.waiting import wait_for
from tests.zookeeper_server import ZooKeeperServer

CTR = "  - {name: ctr, dtype: float32, default: 0.5}\n"
GET_BODY = {"entity": "product", "keys": {"product_id": ["1", "2"]}, "provenance": True}


@pytest.fixture(scope="module")
def redis_port(servers: RedisServers) -> int:
    return servers.start()


@pytest.fixture(scope="module")
def catalog_url(zookeeper: ZooKeeperServer) -> str:
    return f"zk://{zookeeper.address}/shop"


@pytest.fixture(scope="module")
def shop_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shop(tmp_path_factory.mktemp("redis_and_zookeeper") / "shop")


@pytest.fixture(scope="module")
def client(shop_folder: Path, redis_port: int, catalog_url: str) -> Iterator[httpx.Client]:
    features = f"redis://127.0.0.1:{redis_port}?socket_timeout=0.2"
    options = ("--features", features, "--catalog", catalog_url)
    with kirana_up(shop_folder, *options) as served:
        yield served.client


def _kirana(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "kirana", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def _get(client: httpx.Client, *features: str) -> dict[str, Any]:
    response = client.post("/v1/features/get", json={**GET_BODY, "features": list(features)})
    response.raise_for_status()
    reply: dict[str, Any] = response.json()
    return reply


def _put(client: httpx.Client, **columns: list[Any]) -> httpx.Response:
    keys = {"product_id": ["1", "2"]}
    body = {"group": "product.stats", "keys": keys, "columns": columns, "schema_version": 1}
    return client.post("/v1/features/put", json=body)


def _features_part(client: httpx.Client) -> dict[str, Any]:
    part: dict[str, Any] = client.get("/healthz").json()["parts"]["features"]
    return part


def test_rows_are_in_redis_and_the_revision_in_zookeeper(
    client: httpx.Client, servers: RedisServers, redis_port: int, shop_folder: Path
) -> None:
    assert _put(client, clicks=[3, 4], ctr=[0.25, 0.75]).json() == {
        "written": 2,
        "stale": 0,
        "expired": 0,
    }
    reply = _get(client, "stats.clicks", "stats.ctr")
    assert reply["values"] == [[3, 0.25], [4, 0.75]]
    assert _get(client, "stats.clicks")["tier"] == {"stats": ["cache", "cache"]}
    assert reply["revision"] == 1
    assert not (shop_folder / ".kirana" / "CURRENT").exists()
    part = _features_part(client)
    assert part["store"] == f"redis://127.0.0.1:{redis_port}?socket_timeout=0.2"
    assert part["breaker"]["state"] == "closed"
    wait_for(lambda: _features_part(client)["cache"]["hits"] > 0, "a check has seen the hits")


def test_a_push_writes_to_the_store_of_the_running_shop_and_says_so(
    client: httpx.Client, shop_folder: Path, redis_port: int, tmp_path: Path
) -> None:
    file = tmp_path / "category.stats.parquet"
    columns = {"category_id": pa.array([7], pa.int64()), "share": pa.array([0.75])}
    pq.write_table(pa.table(columns), file)
    completed = _kirana("push", str(shop_folder), str(file))
    assert completed.returncode == 0, completed.stderr
    assert "1 rows written" in completed.stdout
    features = f"redis://127.0.0.1:{redis_port}?socket_timeout=0.2"
    assert f"features: using {features}, as the last 'kirana up' did" in completed.stderr
    read = {"entity": "category", "keys": {"category_id": [7]}, "features": ["stats.share"]}
    assert client.post("/v1/features/get", json=read).json()["values"] == [[0.75]]


def test_a_push_to_another_store_is_refused_while_the_shop_is_served(
    client: httpx.Client, shop_folder: Path, redis_port: int, tmp_path: Path
) -> None:
    other_store = f"lmdb://{tmp_path}/features"
    completed = _kirana("push", str(shop_folder), str(tmp_path), "--features", other_store)
    assert completed.returncode == 1
    assert f"redis://127.0.0.1:{redis_port}" in completed.stderr
    assert other_store in completed.stderr
    assert not (tmp_path / "features").exists()


def test_old_rows_are_read_through_a_new_schema_version(
    client: httpx.Client, shop_folder: Path, catalog_url: str
) -> None:
    grown = SHOP.replace(
        CTR,
        CTR.replace("name: ctr", "name: click_rate").replace("0.5}", "0.5, aliases: [ctr]}")
        + "  - {name: orders, dtype: int32, default: 9}\n",
    )
    (shop_folder / "shop.yaml").write_text(grown)
    completed = _kirana("apply", str(shop_folder), "--catalog", catalog_url)
    assert completed.returncode == 0, completed.stderr
    assert "schema version 2 of product.stats" in completed.stderr
    wait_for(lambda: _get(client, "stats.clicks")["revision"] == 2, "revision 2 is live")
    reply = _get(client, "stats.click_rate", "stats.ctr", "stats.orders")
    assert reply["values"] == [[0.25, 0.25, 9], [0.75, 0.75, 9]]
    assert reply["provenance"] == {
        "stats.click_rate": ["stored", "stored"],
        "stats.ctr": ["stored", "stored"],
        "stats.orders": ["not_in_version", "not_in_version"],
    }
    # Clients that write the first version continue to work.
    assert _put(client, clicks=[5, 6], ctr=[0.5, 1.0]).json()["written"] == 2
    assert _get(client, "stats.clicks", "stats.click_rate")["values"] == [[5, 0.5], [6, 1.0]]


def test_a_changed_dtype_is_refused_and_the_last_revision_stays(
    client: httpx.Client, shop_folder: Path, catalog_url: str
) -> None:
    file = shop_folder / "shop.yaml"
    before = file.read_text()
    file.write_text(before.replace("name: clicks, dtype: int32", "name: clicks, dtype: int64"))
    completed = _kirana("apply", str(shop_folder), "--catalog", catalog_url)
    file.write_text(before)
    assert completed.returncode == 1
    assert "needs another name" in completed.stderr
    assert _get(client, "stats.clicks")["revision"] == 2


def test_requests_are_answered_while_zookeeper_is_down(
    client: httpx.Client, zookeeper: ZooKeeperServer, catalog_url: str, shop_folder: Path
) -> None:
    zookeeper.kill()
    try:
        assert _get(client, "stats.clicks")["values"] == [[5], [6]]
        completed = _kirana("apply", str(shop_folder), "--catalog", catalog_url)
        assert completed.returncode == 3
        assert "does not answer" in completed.stderr
    finally:
        zookeeper.restart()
    response = client.put(
        "/v1/catalog/entity/city",
        json={"object": {"keys": [{"name": "city_id"}]}},
        headers={"x-kirana-timeout-ms": "30000"},
    )
    assert response.status_code == 200, response.text
    wait_for(lambda: _get(client, "stats.clicks")["revision"] == 3, "revision 3 is live")


def test_a_frozen_redis_is_reported_and_used_again_afterwards(
    client: httpx.Client, servers: RedisServers, redis_port: int
) -> None:
    servers.process(redis_port).send_signal(signal.SIGSTOP)
    try:

        def unavailable() -> bool:
            reply = _get(client, "stats.clicks", "stats.click_rate")
            return bool(reply["status"] == {"stats": ["unavailable"] * 2})

        wait_for(unavailable, "the cached rows are too old")
        assert _get(client, "stats.clicks", "stats.click_rate")["values"] == [[0, 0.5], [0, 0.5]]
        assert _put(client, clicks=[7, 8], ctr=[0.5, 0.5]).status_code == 503
        wait_for(
            lambda: _features_part(client)["breaker"]["state"] == "open", "the breaker is open"
        )
        wait_for(lambda: client.get("/healthz").status_code == 503, "Kirana is not healthy")
    finally:
        servers.process(redis_port).send_signal(signal.SIGCONT)
    wait_for(lambda: client.get("/healthz").status_code == 200, "Kirana is healthy again")
    wait_for(lambda: _get(client, "stats.clicks")["values"][0] != [0], "rows are read again")


def test_a_redis_that_comes_back_empty_has_no_rows(
    client: httpx.Client, servers: RedisServers, redis_port: int
) -> None:
    servers.kill(redis_port)
    servers.start(port=redis_port)
    wait_for(
        lambda: _get(client, "stats.clicks")["status"] == {"stats": ["missing"] * 2},
        "the rows are missing",
    )
    assert _put(client, clicks=[1, 2], ctr=[0.5, 0.5]).json()["written"] == 2
    assert _get(client, "stats.clicks")["values"] == [[1], [2]]
