"""How tests are divided among workers: which tests form a group, which groups start first."""

from __future__ import annotations

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

TOGETHER = {
    "tests/e2e/replicas/test_client.py": "replicas",
    "tests/e2e/replicas/test_direct_port.py": "replicas",
    "tests/e2e/shop/test_client_install.py": "shop",
    "tests/e2e/shop/test_commands.py": "shop",
    "tests/e2e/shop/test_http.py": "shop",
    "tests/e2e/shop/test_strangers.py": "shop",
    "tests/e2e/test_cassandra.py": "stores",
    "tests/contract/test_bulk_load.py": "stores",
    "tests/contract/test_cached_reads.py": "stores",
    "tests/contract/test_copies.py": "stores",
    "tests/contract/test_feature_store.py": "stores",
    "tests/contract/test_redis.py": "stores",
    "tests/contract/test_cassandra.py": "stores",
    "tests/contract/test_hot_tier.py": "stores",
    "tests/contract/test_tier_interleavings.py": "stores",
    "tests/contract/test_catalog.py": "zookeeper",
    "tests/contract/test_zookeeper_catalog.py": "zookeeper",
    "tests/contract/test_consumption.py": "kafka",
    "tests/contract/test_kafka_topics.py": "kafka",
    "tests/contract/test_stream_writes.py": "kafka",
    "tests/contract/test_archive.py": "kafka",
    "tests/contract/test_history.py": "kafka",
}
"""Group by file, for files that share a running Kirana or a server. Any other file is a separate
group, unless it is in `APART`."""

FIRST = (
    "tests/e2e/test_publish.py",
    "replicas",
    "stores",
    "tests/chaos/test_seeds.py",
    "tests/e2e/test_serve_deploy.py",
    "tests/e2e/test_placement.py",
    "zookeeper",
    "kafka",
    "tests/e2e/test_streams.py",
    "shop",
    "tests/e2e/test_demo.py",
    "tests/e2e/test_handles.py",
    "tests/e2e/test_otto.py",
    "tests/e2e/test_redis_and_zookeeper.py",
    "tests/e2e/test_live_changes.py",
)
"""Groups that start first, in this order."""

APART = (
    "tests/e2e/test_lifecycle.py",
    "tests/e2e/test_start_errors.py",
    "tests/contract/test_cluster_failures.py",
    "tests/contract/test_cluster_slots.py",
)
"""Files whose tests share no server. Each test is a separate group, and these groups start last."""


class GroupScheduler(LoadScopeScheduling):
    """Scheduler that gives whole groups to workers, in the order of collection."""

    def __init__(self, config: pytest.Config, log: Producer) -> None:
        super().__init__(config, log)
        config.option.loadscopereorder = False

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)


def group_of(nodeid: str) -> str:
    file = nodeid.partition("::")[0]
    return nodeid if file in APART else TOGETHER.get(file, file)


def place_of(item: pytest.Item) -> tuple[int, int]:
    """Return a sort key for the order: groups in `FIRST`, other groups, tests in `APART`."""
    group = group_of(item.nodeid)
    if group in FIRST:
        return 0, FIRST.index(group)
    return (2 if group == item.nodeid else 1), 0
