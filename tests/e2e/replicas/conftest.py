"""A Kirana on its own Ray cluster, whose replicas tests kill, scale and replace."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from tests.e2e.ray_cluster import cluster_beside_others
from tests.e2e.serving import Serving
from tests.e2e.shop_requests import WRITES
from tests.e2e.starts import one_at_a_time
from tests.support import publish, write_shop


@pytest.fixture(scope="package")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """Serve the shop of `tests.support`, fused, with two replicas."""
    folder = tmp_path_factory.mktemp("serving")
    shop = write_shop(folder / "shop")
    publish(shop)
    haproxy_folder = Path(tempfile.mkdtemp(prefix="kirana-"))
    try:
        with ExitStack() as stack:
            with one_at_a_time():
                cluster = stack.enter_context(cluster_beside_others(shop, haproxy_folder))
                started = Serving(cluster, folder)
                started.deploy(2)
                started.wait_for_endpoints(lambda ports: len(ports) == 2, "two replicas")
            with httpx.Client(base_url=cluster.url, timeout=30) as client:
                for call in WRITES:
                    assert call.send(client).status_code == 200
            yield started
    finally:
        shutil.rmtree(haproxy_folder)
