"""The objects that every replica needs: log, settings, parts and metrics."""

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
"""How many seconds a busy thread may keep the interpreter while another thread waits for it.

Python's default is 5 ms. While threads prepare a new revision, the event loop would wait that long
again and again.
"""


class Replica:
    """The settings, catalog, parts and metrics of a replica.

    `owner` is the name of the part that the replica belongs to, or `INGRESS`. `handles` are handles
    of the spread parts that the replica calls, by name of the part.

    Raise `ConfigurationError` if Ray was started without the required variables, if a store can't
    work with the number of replicas or machines, or if the URL of the catalog is wrong.
    """

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
    def tune_process() -> None:
        """Tune this process for requests, once everything is imported and built.

        The garbage collector will ignore the objects that exist now, and busy threads will give way
        to the event loop sooner.
        """
        gc.collect()
        gc.freeze()
        sys.setswitchinterval(SWITCH_S)

    def count(self, method: str) -> None:
        """Count a call of a method of this replica's part."""
        self.metrics.count(CALLS, self._owner, method)

    async def close(self) -> None:
        """Publish the last metrics, and close the parts and the catalog."""
        self._publisher.close()
        await self.assembly.close()
        self.source.close()


def alive_nodes() -> int:
    """Return the number of live nodes of the cluster."""
    return sum(1 for node in ray.nodes() if node["Alive"])


def node_address() -> str:
    """Return the address of this machine in the cluster. `ray start` has an option to set it."""
    return str(_own_node()["NodeManagerAddress"])


def _on_head() -> bool:
    """Return whether this process runs on the head node.

    A graph with LMDB stores can be deployed only while the head is the only node. The folders are
    there, and replicas on the head can use them even after other nodes have joined the cluster.
    """
    return HEAD_NODE_RESOURCE_NAME in _own_node()["Resources"]


def _own_node() -> dict[str, Any]:
    own_id = ray.get_runtime_context().get_node_id()
    node: dict[str, Any] = next(node for node in ray.nodes() if node["NodeID"] == own_id)
    return node


def _max_replicas() -> int:
    """Return the maximum number of replicas of the deployment that this replica belongs to."""
    config = serve.get_replica_context()._deployment_config
    if config.autoscaling_config is not None:
        return int(config.autoscaling_config.max_replicas)
    return config.num_replicas or 1
