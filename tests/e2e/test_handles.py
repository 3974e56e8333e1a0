"""Another Serve application, `examples/storefront`, beside Kirana in one cluster."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml

from tests.e2e.ray_cluster import REPOSITORY, SERVE_CONFIG, RayCluster, cluster_beside_others
from tests.e2e.shop_requests import PRODUCTS, WRITES
from tests.e2e.waiting import wait_for
from tests.support import publish, write_shop


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayCluster]:
    folder = tmp_path_factory.mktemp("handles")
    shop = write_shop(folder / "shop")
    publish(shop)
    short = Path(tempfile.mkdtemp(prefix="kirana-"))
    config = yaml.safe_load(SERVE_CONFIG.read_text())
    (kirana,) = config["applications"]
    kirana["deployments"] = []
    kirana["args"]["placement"] = "fused"
    kirana["route_prefix"] = "/"
    storefront = {
        "name": "storefront",
        "route_prefix": "/storefront",
        "import_path": "examples.storefront.app:app",
    }
    config["applications"].append(storefront)
    exports = {"PYTHONPATH": str(REPOSITORY)}
    try:
        with cluster_beside_others(shop, short, exports=exports) as started:
            config["http_options"]["port"] = started.http_port
            started.deploy(config, folder / "serve.yaml")
            with httpx.Client(base_url=started.url, timeout=30) as client:
                wait_for(lambda: _answers(client, "/healthz"), "Kirana is up")
                for call in WRITES:
                    assert call.send(client).status_code == 200
                wait_for(
                    lambda: _answers(client, "/storefront?user_id=7&products=1"),
                    "the storefront is up",
                )
            yield started
    finally:
        shutil.rmtree(short)


def _answers(client: httpx.Client, path: str) -> bool:
    try:
        return client.get(path).status_code == 200
    except httpx.TransportError:
        return False


def test_another_application_ranks_as_http_does(cluster: RayCluster) -> None:
    with httpx.Client(base_url=cluster.url, timeout=30) as client:
        query = {"user_id": "7", "products": ",".join(PRODUCTS)}
        shelf = client.get("/storefront", params=query).json()
        body = {"context": {"user_id": "7", "product_id": PRODUCTS}, "top_k": 3}
        found = client.post("/v1/infer/ranker", json=body).json()
    assert [each["product_id"] for each in shelf] == found["ids"]
    assert [each["score"] for each in shelf] == pytest.approx(found["scores"])
    assert [each["title"] for each in shelf] == [f"product {each}" for each in found["ids"]]


def test_errors_arrive_as_themselves(cluster: RayCluster) -> None:
    with httpx.Client(base_url=cluster.url, timeout=30) as client:
        query = {"user_id": "7", "products": ""}
        said = client.get("/storefront", params=query).json()
    assert said["error"] == "invalid_input"
    assert "empty" in said["message"]
