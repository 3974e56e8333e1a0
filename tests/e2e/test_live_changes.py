"""Changes while Kirana serves: features that another process pushes, and new revisions."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.e2e.shop_requests import PAUSE_S
from tests.e2e.starts import kirana_up
from tests.support import SHOP, write_shop
from tests.waiting import wait_for

ROWS = 40_000
MAP_BYTES = 1 << 20


@pytest.fixture(scope="module")
def shop_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shop(tmp_path_factory.mktemp("changing") / "shop")


@pytest.fixture(scope="module")
def features_url(shop_folder: Path) -> str:
    """Return the URL of a store whose map is at first too small for the rows of the push."""
    return f"lmdb://{shop_folder}/features?map_bytes={MAP_BYTES}"


@pytest.fixture(scope="module")
def client(shop_folder: Path, features_url: str) -> Iterator[httpx.Client]:
    options = ("--features", features_url)
    with kirana_up(shop_folder, *options) as served:
        yield served.client


def _kirana(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "kirana", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


class _Reader:
    """A thread that reads features until the block ends, and keeps the failed replies."""

    def __init__(self, client: httpx.Client) -> None:
        self.failures: list[str] = []
        self.calls = 0
        self._url = client.base_url
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        body = {
            "entity": "product",
            "keys": {"product_id": [str(n) for n in range(200)]},
            "features": ["stats.clicks"],
        }
        with httpx.Client(base_url=self._url) as client:
            while not self._stop.wait(PAUSE_S):
                reply = client.post("/v1/features/get", json=body)
                self.calls += 1
                if reply.status_code != 200:
                    self.failures.append(reply.text)

    def __enter__(self) -> _Reader:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def test_a_push_grows_the_map_while_it_is_read(
    client: httpx.Client, shop_folder: Path, features_url: str, tmp_path: Path
) -> None:
    table = pa.table(
        {
            "product_id": np.arange(ROWS).astype(str),
            "clicks": np.arange(ROWS),
            "ctr": np.linspace(0.0, 1.0, ROWS),
        }
    )
    pq.write_table(table, tmp_path / "product.stats.parquet")
    with _Reader(client) as reader:
        completed = _kirana("push", str(shop_folder), str(tmp_path), "--features", features_url)
        assert completed.returncode == 0, completed.stderr
        wait_for(lambda: reader.calls > 20, "more than 20 reads")
    assert f"{ROWS} rows written" in completed.stdout
    assert reader.failures == []
    assert (shop_folder / "features" / "data.mdb").stat().st_size > 2 * MAP_BYTES
    last = str(ROWS - 1)
    body = {"entity": "product", "keys": {"product_id": [last]}, "features": ["stats.clicks"]}
    assert client.post("/v1/features/get", json=body).json()["values"] == [[ROWS - 1]]
    write = {
        "group": "product.stats",
        "keys": {"product_id": [last]},
        "columns": {"clicks": [5], "ctr": [0.5]},
    }
    assert client.post("/v1/features/put", json=write).json() == {
        "written": 1,
        "stale": 0,
        "expired": 0,
    }
    assert client.post("/v1/features/get", json=body).json()["values"] == [[5]]


def test_a_new_revision_is_live_without_a_restart(client: httpx.Client, shop_folder: Path) -> None:
    body = {"context": {"user_id": "7"}}
    before = client.post("/v1/flows/for_you", json=body).json()["revision"]
    shop = shop_folder / "shop.yaml"
    renamed = SHOP.replace("name: for_you", "name: for_me")
    added = renamed.replace("default: 0.5}", "default: 0.5}\n  - {name: views, dtype: int32}")
    shop.write_text(added)
    assert _kirana("apply", str(shop_folder)).returncode == 0
    wait_for(
        lambda: client.post("/v1/flows/for_me", json=body).status_code == 200, "the flow is live"
    )
    assert client.post("/v1/flows/for_me", json=body).json()["revision"] == before + 1
    assert client.post("/v1/flows/for_you", json=body).status_code == 404
    read = {
        "entity": "product",
        "keys": {"product_id": ["1"]},
        "features": ["stats.clicks", "stats.views"],
        "provenance": True,
    }
    reply = client.post("/v1/features/get", json=read).json()
    assert reply["values"] == [[1, 0]]
    assert reply["provenance"]["stats.views"] == ["not_in_version"]


def test_a_broken_revision_is_ignored_and_the_log_says_why(
    client: httpx.Client, shop_folder: Path
) -> None:
    state = shop_folder / ".kirana"
    good = (state / "CURRENT").read_text()
    number, identity = good.split()
    broken = state / "revisions" / "999" / "catalog.json"
    broken.parent.mkdir()
    broken.write_text("{}")
    (state / "CURRENT").write_text(f"999 {identity}")

    def refused() -> bool:
        catalog = client.get("/healthz").json()["parts"]["catalog"]
        return bool(catalog["refused_revisions"]) and catalog["revision"] == int(number)

    wait_for(refused, "the replica refuses the broken revision")
    (state / "CURRENT").write_text(good)
    assert "this revision is damaged" in (state / "kirana.log").read_text()


def test_a_broken_catalog_is_refused_and_the_last_good_one_stays(
    client: httpx.Client, shop_folder: Path
) -> None:
    shop = shop_folder / "shop.yaml"
    good = shop.read_text()
    revision = client.get("/healthz").json()["parts"]["catalog"]["revision"]
    shop.write_text(good.replace("event: click, last: 5", "event: clack, last: 5"))
    completed = _kirana("apply", str(shop_folder))
    shop.write_text(good)
    assert completed.returncode == 1
    assert "nodes.recent.with.event: unknown event type 'clack'" in completed.stderr
    assert "did you mean 'click'?" in completed.stderr
    assert client.get("/healthz").json()["parts"]["catalog"]["revision"] == revision
