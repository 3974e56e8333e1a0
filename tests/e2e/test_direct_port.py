"""The direct ports under load while replicas are killed, scaled and rolled to another version."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml

from demo.server import server
from tests.e2e.direct_client import Load
from tests.e2e.ports import quiet_ports
from tests.e2e.ray_cluster import SERVE_CONFIG, RayCluster, cluster_beside_others
from tests.e2e.shop_requests import WRITES
from tests.e2e.waiting import wait_for
from tests.support import publish, write_shop

INFER = "/v1/infer/ranker"
BODY = {"context": {"user_id": 7, "product_id": ["1", "2", "3", "nobody"]}}

Endpoints = dict[str, str]
"""URLs by the name of a replica."""


class Serving:
    """A fused application on a cluster of its own, that can be deployed with other options."""

    def __init__(self, cluster: RayCluster, folder: Path) -> None:
        self.cluster = cluster
        self.url = cluster.url
        self._file = folder / "serve.yaml"
        self._config: dict[str, Any] = yaml.safe_load(SERVE_CONFIG.read_text())
        self._config["http_options"]["port"] = cluster.http_port
        self._application = self._config["applications"][0]
        (self._ingress,) = (
            each for each in self._application["deployments"] if each["name"] == "Ingress"
        )
        self._application["deployments"] = [self._ingress]
        self._application["args"]["placement"] = "fused"
        self._scaling: dict[str, Any] = self._ingress.pop("autoscaling_config")

    def deploy(self, replicas: int, **arguments: object) -> None:
        """Roll to other arguments, or only change how many replicas there are."""
        self._ingress.pop("autoscaling_config", None)
        self._ingress["num_replicas"] = replicas
        self._application["args"].update(arguments)
        self.cluster.deploy(self._config, self._file)

    def scale_by_load(self, **options: object) -> None:
        """Take the autoscaling of `serve_config.yaml`, with some other options."""
        self._ingress.pop("num_replicas", None)
        self._ingress["autoscaling_config"] = {**self._scaling, **options}
        self.cluster.deploy(self._config, self._file)

    def endpoints(self) -> Endpoints:
        reply = httpx.get(f"{self.url}/v1/endpoints", timeout=30)
        return {
            each["replica"]: each["url"] for each in reply.raise_for_status().json()["endpoints"]
        }

    def wait_for_endpoints(self, fit: Callable[[Endpoints], bool], what: str) -> Endpoints:
        """Return the endpoints once they fit."""

        def asked() -> Endpoints | None:
            try:
                found = self.endpoints()
            except (httpx.TransportError, httpx.HTTPStatusError):
                return None
            return found if fit(found) else None

        found = wait_for(asked, what)
        assert found is not None
        return found

    def load(self) -> Load:
        return Load(self.url, INFER, BODY)


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    folder = tmp_path_factory.mktemp("direct")
    shop = write_shop(folder / "shop")
    publish(shop)
    short = Path(tempfile.mkdtemp(prefix="kirana-"))
    try:
        with cluster_beside_others(shop, short) as cluster:
            started = Serving(cluster, folder)
            started.deploy(2)
            started.wait_for_endpoints(lambda found: len(found) == 2, "two replicas")
            with httpx.Client(base_url=cluster.url, timeout=30) as client:
                for call in WRITES:
                    assert call.send(client).status_code == 200
            yield started
    finally:
        shutil.rmtree(short)


def _listening_on(url: str) -> psutil.Process:
    port = httpx.URL(url).port
    (found,) = (
        each.pid
        for each in psutil.net_connections("tcp")
        if each.status == psutil.CONN_LISTEN and each.laddr and each.laddr.port == port
    )
    return psutil.Process(found)


def _wait_until_each_answers(load: Load, urls: list[str]) -> None:
    before = load.answered.copy()
    wait_for(
        lambda: all(load.answered[url] > before[url] + 20 for url in urls), "every port answers"
    )


def test_a_replica_killed_under_load_costs_only_what_it_was_doing(serving: Serving) -> None:
    before = serving.wait_for_endpoints(lambda found: len(found) == 2, "two replicas")
    gone, killed = sorted(before.items())[0]
    with serving.load() as load:
        _wait_until_each_answers(load, list(before.values()))
        _listening_on(killed).kill()
        after = serving.wait_for_endpoints(
            lambda found: len(found) == 2 and gone not in found, "another replica"
        )
        _wait_until_each_answers(load, list(after.values()))
    assert load.wrong == []
    assert {lost.url for lost in load.lost} <= {killed}
    assert len(load.lost) <= load.threads


def test_scaling_up_and_down_under_load_loses_no_request(serving: Serving) -> None:
    with serving.load() as load:
        serving.deploy(3)
        three = serving.wait_for_endpoints(lambda found: len(found) == 3, "three replicas")
        _wait_until_each_answers(load, list(three.values()))
        serving.deploy(1)
        one = serving.wait_for_endpoints(lambda found: len(found) == 1, "one replica")
        _wait_until_each_answers(load, list(one.values()))
    assert one.items() <= three.items()
    assert (load.lost, load.wrong) == ([], [])


def test_rolling_to_another_version_under_load_loses_no_request(serving: Serving) -> None:
    serving.deploy(2)
    old = serving.wait_for_endpoints(lambda found: len(found) == 2, "two replicas")
    with serving.load() as load:
        _wait_until_each_answers(load, list(old.values()))
        serving.deploy(2, timeout_ms=4_000)
        new = serving.wait_for_endpoints(
            lambda found: len(found) == 2 and not found.keys() & old.keys(), "two new replicas"
        )
        _wait_until_each_answers(load, list(new.values()))
    assert (load.lost, load.wrong) == ([], [])


def test_load_on_the_direct_ports_alone_adds_a_replica(serving: Serving) -> None:
    serving.deploy(1)
    serving.wait_for_endpoints(lambda found: len(found) == 1, "one replica")
    quick = {"metrics_interval_s": 0.5, "look_back_period_s": 2, "upscale_delay_s": 1}
    serving.scale_by_load(**quick, min_replicas=1, max_replicas=2, target_ongoing_requests=2)
    with serving.load() as load:
        serving.wait_for_endpoints(lambda found: len(found) == 2, "a replica for the load")
    assert (load.lost, load.wrong) == ([], [])


def test_without_direct_ports_there_are_no_endpoints(tmp_path: Path) -> None:
    shop = write_shop(tmp_path / "shop")
    options = ("--direct-ports", "off")
    with server(shop, quiet_ports(1)[0], tmp_path / "up.log", *options) as served:
        assert served.client.get("/v1/endpoints").json() == {"endpoints": []}
