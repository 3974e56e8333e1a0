"""An application on a Ray of its own, deployed again and again with other options."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import psutil
import yaml

from tests.e2e.direct_client import Load
from tests.e2e.ray_cluster import SERVE_CONFIG, RayCluster
from tests.waiting import wait_for

INFER = "/v1/infer/ranker"
BODY = {"context": {"user_id": 7, "product_id": ["1", "2", "3", "nobody"]}}

Endpoints = dict[str, str]
"""URLs by the name of a replica."""


class Serving:
    """A fused application at first, that can be deployed with other options."""

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
        self._others = [
            each for each in self._application["deployments"] if each is not self._ingress
        ]
        self._application["deployments"] = [self._ingress]
        self._application["args"]["placement"] = "fused"
        self._scaling: dict[str, Any] = self._ingress.pop("autoscaling_config")

    def deploy(self, replicas: int, **arguments: object) -> None:
        """Roll to other arguments, or only change how many replicas there are."""
        self._ingress.pop("autoscaling_config", None)
        self._ingress["num_replicas"] = replicas
        self._application["args"].update(arguments)
        self.cluster.deploy(self._config, self._file)

    def spread(self) -> None:
        """Have every part as a deployment of its own from the next time on."""
        self._application["deployments"] = [self._ingress, *self._others]

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

    def load(self, **more: float) -> Load:
        return Load(self.url, INFER, BODY, **more)  # type: ignore[arg-type]


def listening_on(url: str) -> psutil.Process:
    """Return the process that listens on the port of a URL."""
    address = (httpx.URL(url).host, httpx.URL(url).port)
    (found,) = (
        each.pid
        for each in psutil.net_connections("tcp")
        if each.status == psutil.CONN_LISTEN and each.laddr and tuple(each.laddr) == address
    )
    return psutil.Process(found)
