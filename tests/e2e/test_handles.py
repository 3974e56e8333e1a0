"""Calls by handle from another Serve application, `examples/storefront`, in Kirana's cluster."""

from __future__ import annotations

import concurrent.futures
import re
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import httpx
import psutil
import pytest
import yaml

from tests.e2e.prometheus import counts
from tests.e2e.ray_cluster import REPOSITORY, SERVE_CONFIG, RayCluster, cluster_beside_others
from tests.e2e.serving import listening_on
from tests.e2e.shop_requests import PAUSE_S, PRODUCTS, WRITES
from tests.e2e.starts import one_at_a_time
from tests.support import publish, write_shop
from tests.waiting import wait_for

SHELF = f"/storefront?user_id=7&products={','.join(PRODUCTS)}"
_SESSION = re.compile(r"--session[-_]dir=(\S+)")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayCluster]:
    folder = tmp_path_factory.mktemp("handles")
    shop = write_shop(folder / "shop")
    publish(shop)
    haproxy_folder = Path(tempfile.mkdtemp(prefix="kirana-"))
    config = yaml.safe_load(SERVE_CONFIG.read_text())
    (kirana,) = config["applications"]
    kirana["deployments"] = [{"name": "Ingress", "num_replicas": 2}]
    kirana["args"]["placement"] = "fused"
    kirana["route_prefix"] = "/"
    storefront = {
        "name": "storefront",
        "route_prefix": "/storefront",
        "import_path": "examples.storefront.app:app",
        # The tests check that calls succeed. On a busy machine a call may take seconds.
        "args": {"timeout_s": 20.0},
    }
    config["applications"].append(storefront)
    exports = {"PYTHONPATH": str(REPOSITORY)}
    try:
        with ExitStack() as stack:
            with one_at_a_time():
                started = stack.enter_context(
                    cluster_beside_others(shop, haproxy_folder, exports=exports)
                )
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
        shutil.rmtree(haproxy_folder)


def _answers(client: httpx.Client, path: str) -> bool:
    try:
        return client.get(path).status_code == 200
    except httpx.TransportError:
        return False


def test_another_application_gets_the_same_ranking_as_over_http(cluster: RayCluster) -> None:
    with httpx.Client(base_url=cluster.url, timeout=30) as client:
        query = {"user_id": "7", "products": ",".join(PRODUCTS)}
        shelf = client.get("/storefront", params=query).json()
        body = {"context": {"user_id": "7", "product_id": PRODUCTS}, "top_k": 3}
        ranking = client.post("/v1/infer/ranker", json=body).json()
    assert [entry["product_id"] for entry in shelf] == ranking["ids"]
    assert [entry["score"] for entry in shelf] == pytest.approx(ranking["scores"])
    assert [entry["title"] for entry in shelf] == [f"product {id_}" for id_ in ranking["ids"]]


def test_errors_keep_their_code_and_message(cluster: RayCluster) -> None:
    with httpx.Client(base_url=cluster.url, timeout=30) as client:
        query = {"user_id": "7", "products": ""}
        error = client.get("/storefront", params=query).json()
    assert error["error"] == "invalid_input"
    assert "empty" in error["message"]


def test_a_model_id_that_is_not_in_the_catalog_is_unknown(cluster: RayCluster) -> None:
    with httpx.Client(base_url=cluster.url, timeout=30) as client:
        ranker = client.get("/v1/catalog/inferflow/ranker").json()["object"]
        flow = client.get("/v1/catalog/flow/for_you").json()["object"]
        removed = [{"kind": "inferflow", "name": "ranker"}, {"kind": "flow", "name": "for_you"}]
        assert client.post("/v1/catalog", json={"delete": removed}).status_code == 200
        try:
            error = wait_for(
                lambda: (reply := client.get(SHELF)).status_code == 404 and reply.json(),
                "the storefront sees that there is no ranker",
            )
        finally:
            restored = client.post("/v1/catalog", json={"objects": [ranker, flow]})
            assert restored.status_code == 200, restored.text
        assert error == {"error": "unknown_model_id", "field": "model_id"}
        wait_for(lambda: _answers(client, SHELF), "the ranker is back")


def _metrics_url(cluster: RayCluster) -> str:
    """Return the URL of the cluster's metrics, with the port from Ray's session folder."""
    lines = []
    for process in cluster.processes():
        with suppress(psutil.NoSuchProcess):
            lines.append(" ".join(process.cmdline()))
    (session,) = {match[1] for line in lines if (match := _SESSION.search(line))}
    (port_file,) = Path(session).glob("metrics_export_port_*")
    return f"http://127.0.0.1:{port_file.read_text().strip()}/metrics"


def test_calls_by_handle_are_counted_under_their_door(cluster: RayCluster) -> None:
    with httpx.Client(base_url=cluster.url, timeout=30) as client:
        # The test above has removed the ranker for a while.
        wait_for(lambda: _answers(client, SHELF), "the ranker is back")
    url = _metrics_url(cluster)

    def counted() -> bool:
        requests = counts(url, "ray_kirana_requests_total", "door", "route", "status")
        return all(requests["handle", route, "200"] > 0 for route in ("infer", "features_get"))

    wait_for(counted, "the metrics count calls by handle")


def test_a_killed_replica_fails_no_call_of_another_application(cluster: RayCluster) -> None:
    stop = threading.Event()

    def browse() -> tuple[int, list[str]]:
        count, failures = 0, []
        with httpx.Client(base_url=cluster.url, timeout=30) as client:
            expected = client.get(SHELF).json()
            while not stop.wait(PAUSE_S):
                reply = client.get(SHELF)
                if reply.status_code != 200 or reply.json() != expected:
                    failures.append(f"{reply.status_code} {reply.text}")
                count += 1
        return count, failures

    with httpx.Client(base_url=cluster.url, timeout=30) as client:
        before = wait_for(lambda: _endpoints(client, 2), "two replicas")
        killed_replica, killed_url = sorted(before.items())[0]
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            calls = [pool.submit(browse) for _ in range(4)]
            try:
                wait_for(lambda: _answers(client, SHELF), "an answer under load")
                listening_on(killed_url).kill()
                wait_for(
                    lambda: killed_replica not in (after := _endpoints(client, 2)) and after,
                    "another replica",
                )
            finally:
                stop.set()
        for call in calls:
            count, failures = call.result()
            assert count > 0
            assert failures == []


def _endpoints(client: httpx.Client, count: int) -> dict[str, str]:
    """Return the URLs of the direct ports, by replica, if there are `count`, else {}.

    Also return {} if the request fails, because it may reach a replica that was just killed.
    """
    try:
        reply = client.get("/v1/endpoints")
    except httpx.TransportError:
        return {}
    if reply.status_code != 200:
        return {}
    urls = {endpoint["replica"]: endpoint["url"] for endpoint in reply.json()["endpoints"]}
    return urls if len(urls) == count else {}
