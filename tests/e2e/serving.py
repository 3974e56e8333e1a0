"""A Kirana on its own Ray cluster. Tests deploy it again with other options."""

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
"""URLs of direct ports, by the name of the replica."""


class Serving:
    """Deploys the application of `serve_config.yaml` with various options. It is fused at first."""

    def __init__(self, cluster: RayCluster, folder: Path) -> None:
        self.cluster = cluster
        self.url = cluster.url
        self._file = folder / "serve.yaml"
        self._config: dict[str, Any] = yaml.safe_load(SERVE_CONFIG.read_text())
        self._config["http_options"]["port"] = cluster.http_port
        self._application = self._config["applications"][0]
        (self._ingress,) = (
            deployment
            for deployment in self._application["deployments"]
            if deployment["name"] == "Ingress"
        )
        self._part_deployments = [
            deployment
            for deployment in self._application["deployments"]
            if deployment is not self._ingress
        ]
        self._application["deployments"] = [self._ingress]
        self._application["args"]["placement"] = "fused"
        self._scaling: dict[str, Any] = self._ingress.pop("autoscaling_config")

    def deploy(self, replicas: int, **arguments: object) -> None:
        """Deploy with this number of replicas.

        `arguments` are set in the application's `args`. If one of them changes, Serve replaces the
        running replicas.
        """
        self._ingress.pop("autoscaling_config", None)
        self._ingress["num_replicas"] = replicas
        self._application["args"].update(arguments)
        self.cluster.deploy(self._config, self._file)

    def spread(self) -> None:
        """Add the deployments of all parts to the configuration.

        The caller must then call `deploy` with `placement="spread"`.
        """
        self._application["deployments"] = [self._ingress, *self._part_deployments]

    def scale_by_load(self, **options: object) -> None:
        """Deploy with the autoscaling of `serve_config.yaml`, changed by `options`."""
        self._ingress.pop("num_replicas", None)
        self._ingress["autoscaling_config"] = {**self._scaling, **options}
        self.cluster.deploy(self._config, self._file)

    def endpoints(self) -> Endpoints:
        reply = httpx.get(f"{self.url}/v1/endpoints", timeout=30)
        return {
            endpoint["replica"]: endpoint["url"]
            for endpoint in reply.raise_for_status().json()["endpoints"]
        }

    def wait_for_endpoints(
        self, accepts: Callable[[Endpoints], bool], description: str
    ) -> Endpoints:
        """Wait until `accepts` returns true for the endpoints, and return them."""

        def accepted() -> Endpoints | None:
            try:
                current = self.endpoints()
            except (httpx.TransportError, httpx.HTTPStatusError):
                return None
            return current if accepts(current) else None

        endpoints = wait_for(accepted, description)
        assert endpoints is not None
        return endpoints

    def load(self, **options: float) -> Load:
        return Load(self.url, INFER, BODY, **options)  # type: ignore[arg-type]


def listening_on(url: str) -> psutil.Process:
    """Return the process that listens on the port of a URL."""
    address = (httpx.URL(url).host, httpx.URL(url).port)
    (pid,) = (
        connection.pid
        for connection in psutil.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
        and connection.laddr
        and tuple(connection.laddr) == address
    )
    return psutil.Process(pid)
