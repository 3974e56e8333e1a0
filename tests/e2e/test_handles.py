"""Another Serve application, `examples/storefront`, beside Kirana in one cluster."""

from __future__ import annotations

import concurrent.futures
import re
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
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
    short = Path(tempfile.mkdtemp(prefix="kirana-"))
    config = yaml.safe_load(SERVE_CONFIG.read_text())
    (kirana,) = config["applications"]
    kirana["deployments"] = [{"name": "Ingress", "num_replicas": 2}]
    kirana["args"]["placement"] = "fused"
    kirana["route_prefix"] = "/"
    storefront = {
        "name": "storefront",
        "route_prefix": "/storefront",
        "import_path": "examples.storefront.app:app",
        # whether a call fails is asked here, and a busy machine may need seconds for one
        "args": {"timeout_s": 20.0},
    }
    config["applications"].append(storefront)
    exports = {"PYTHONPATH": str(REPOSITORY)}
    try:
        with ExitStack() as stack:
            with one_at_a_time():
                started = stack.enter_context(cluster_beside_others(shop, short, exports=exports))
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


def test_what_the_catalog_lacks_is_unknown(cluster: RayCluster) -> None:
    with httpx.Client(base_url=cluster.url, timeout=30) as client:
        ranker = client.get("/v1/catalog/inferflow/ranker").json()["object"]
        flow = client.get("/v1/catalog/flow/for_you").json()["object"]
        gone = [{"kind": "inferflow", "name": "ranker"}, {"kind": "flow", "name": "for_you"}]
        assert client.post("/v1/catalog", json={"delete": gone}).status_code == 200
        try:
            said = wait_for(
                lambda: (reply := client.get(SHELF)).status_code == 404 and reply.json(),
                "the storefront sees that there is no ranker",
            )
        finally:
            back = client.post("/v1/catalog", json={"objects": [ranker, flow]})
            assert back.status_code == 200, back.text
        assert said == {"error": "unknown_model_id", "field": "model_id"}
        wait_for(lambda: _answers(client, SHELF), "the ranker is back")


def _metrics_url(cluster: RayCluster) -> str:
    """Return where the cluster offers its figures; Ray notes the port in its session's folder."""
    lines = [" ".join(each.cmdline()) for each in cluster.processes()]
    (session,) = {found[1] for line in lines if (found := _SESSION.search(line))}
    (noted,) = Path(session).glob("metrics_export_port_*")
    return f"http://127.0.0.1:{noted.read_text().strip()}/metrics"


def test_calls_by_handle_are_counted_as_such(cluster: RayCluster) -> None:
    with httpx.Client(base_url=cluster.url, timeout=30) as client:
        # the test before has taken the ranker away for a while
        wait_for(lambda: _answers(client, SHELF), "the ranker is back")
    url = _metrics_url(cluster)

    def counted() -> bool:
        found = counts(url, "ray_kirana_requests_total", "door", "route", "status")
        return all(found["handle", route, "200"] > 0 for route in ("infer", "features_get"))

    wait_for(counted, "calls by handle among the figures")


def test_a_killed_replica_fails_no_call_of_another_application(cluster: RayCluster) -> None:
    stop = threading.Event()

    def browse() -> tuple[int, list[str]]:
        done, wrong = 0, []
        with httpx.Client(base_url=cluster.url, timeout=30) as client:
            expected = client.get(SHELF).json()
            while not stop.wait(PAUSE_S):
                reply = client.get(SHELF)
                if reply.status_code != 200 or reply.json() != expected:
                    wrong.append(f"{reply.status_code} {reply.text}")
                done += 1
        return done, wrong

    with httpx.Client(base_url=cluster.url, timeout=30) as client:
        before = wait_for(lambda: _endpoints(client, 2), "two replicas")
        gone, killed = sorted(before.items())[0]
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            calls = [pool.submit(browse) for _ in range(4)]
            try:
                wait_for(lambda: _answers(client, SHELF), "an answer under load")
                listening_on(killed).kill()
                wait_for(
                    lambda: gone not in (after := _endpoints(client, 2)) and after,
                    "another replica",
                )
            finally:
                stop.set()
        for call in calls:
            done, wrong = call.result()
            assert done > 0
            assert wrong == []


def _endpoints(client: httpx.Client, count: int) -> dict[str, str]:
    """Return the direct ports by replica if there are so many; a raw request may be lost too."""
    try:
        reply = client.get("/v1/endpoints")
    except httpx.TransportError:
        return {}
    if reply.status_code != 200:
        return {}
    found = {each["replica"]: each["url"] for each in reply.json()["endpoints"]}
    return found if len(found) == count else {}
