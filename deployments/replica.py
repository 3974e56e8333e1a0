"""What each replica does as it starts: its log, its settings, its parts, its counters."""

from __future__ import annotations

import gc
import sys
from collections.abc import Mapping
from typing import Any

import ray
from ray import serve
from ray._common.constants import HEAD_NODE_RESOURCE_NAME
from ray.serve.handle import DeploymentHandle

from kirana.deployments.handles import Remote, RemoteActor
from kirana.deployments.logs import start_log
from kirana.deployments.metrics import Publisher
from kirana.metrics import Counter, Metrics
from kirana.serving.assembly import Assembly, open_catalog
from kirana.serving.environment import require_serve_environment
from kirana.serving.parts import PARTS
from kirana.serving.preflight import check_placement
from kirana.serving.settings import Settings

CALLS = Counter("kirana_calls", "Calls that reached a spread part.", ("part", "method"))

SWITCH_S = 0.0005
"""A thread that computes gives the interpreter up after so long, where another one waits for it.

Python's 5 ms are long beside a rank of 4: while a revision is published, that is every wait.
"""


class Replica:
    """Raises `ConfigurationError` where its deployment was scaled to what can't work."""

    def __init__(
        self, owner: str, settings: Mapping[str, Any], handles: Mapping[str, DeploymentHandle]
    ) -> None:
        start_log()
        self.settings = Settings.model_validate(settings)
        require_serve_environment()
        check_placement(self.settings, {owner: _max_replicas()}, 1 if _on_head() else alive_nodes())
        remote = {
            part.name: Remote(part, handles[part.name]) for part in PARTS if part.name in handles
        }
        self.source = open_catalog(self.settings)
        self.metrics = Metrics()
        self.assembly = Assembly(self.settings, self.source, remote, RemoteActor, self.metrics)
        self._owner = owner
        self._publisher = Publisher(self.metrics, serve.get_replica_context().deployment)

    @staticmethod
    def settle() -> None:
        """Take what was imported and built out of the garbage collector's rounds, and have threads
        that compute let the event loop go on.
        """
        gc.collect()
        gc.freeze()
        sys.setswitchinterval(SWITCH_S)

    def count(self, method: str) -> None:
        self.metrics.count(CALLS, self._owner, method)

    async def close(self) -> None:
        self._publisher.close()
        await self.assembly.close()
        self.source.close()


def alive_nodes() -> int:
    """Return how many machines the cluster has now."""
    return sum(1 for node in ray.nodes() if node["Alive"])


def node_address() -> str:
    """Return the address that Ray knows this machine by: what `--node-ip-address` said."""
    return str(_own_node()["NodeManagerAddress"])


def _on_head() -> bool:
    """Return whether this is the machine whose folders a graph of one machine began with."""
    return HEAD_NODE_RESOURCE_NAME in _own_node()["Resources"]


def _own_node() -> dict[str, Any]:
    here = ray.get_runtime_context().get_node_id()
    found: dict[str, Any] = next(each for each in ray.nodes() if each["NodeID"] == here)
    return found


def _max_replicas() -> int:
    config = serve.get_replica_context()._deployment_config
    if config.autoscaling_config is not None:
        return int(config.autoscaling_config.max_replicas)
    return config.num_replicas or 1
