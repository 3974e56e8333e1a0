"""Two replicas of every part: a revision reaches one of them late, and no reply mixes two."""

from __future__ import annotations

import concurrent.futures
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml

from demo.server import server
from kirana.serve_environment import free_ports
from tests.e2e.shop_requests import WRITES
from tests.support import SHOP, write_shop

DEPLOYMENTS = ("Ingress", "Flows", "Inferflow", "FeatureStore", "InteractionStore", "ModelReplica")
PUBLISHES = 6
CALLERS = 4
SCORE = 'score: "p_click + 4 * p_order"'
TOP = "with: {k: 3}"


def catalog_of(revision: int) -> str:
    """Odd revisions rank three, all above zero; even ones two, all far below."""
    if revision % 2:
        return SHOP
    changed = SHOP.replace(SCORE, 'score: "p_click + 4 * p_order - 1000"')
    return changed.replace(TOP, "with: {k: 2}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shop(tmp_path_factory.mktemp("late") / "shop", catalog_of(1))


@pytest.fixture(scope="module")
def client(folder: Path) -> Iterator[httpx.Client]:
    """Started from a Serve configuration, as `serve deploy` would."""
    deployments = [{"name": name, "num_replicas": 2} for name in DEPLOYMENTS]
    application = {
        "name": "kirana",
        "import_path": "graphs.serving:build",
        "args": {"placement": "spread"},
        "deployments": deployments,
    }
    config = folder / "serve.yaml.txt"
    config.write_text(yaml.safe_dump({"applications": [application]}))
    options = ("--config", str(config))
    with server(folder, free_ports(1)[0], folder / "up.log", *options) as served:
        for call in WRITES:
            assert call.send(served.client).status_code == 200
        yield served.client


def test_a_reply_is_of_one_revision_whichever_replicas_made_it(
    client: httpx.Client, folder: Path
) -> None:
    stop = threading.Event()
    body = {"context": {"user_id": "7"}}

    def ask() -> list[tuple[int, int, bool]]:
        seen = []
        with httpx.Client(base_url=client.base_url, timeout=30) as own:
            while not stop.is_set():
                reply = own.post("/v1/flows/for_you", json=body)
                assert reply.status_code == 200, reply.text
                found = reply.json()
                scores = found["output"]["scores"]
                below = all(score < -500 for score in scores)
                assert below or all(score > -500 for score in scores)
                seen.append((found["revision"], len(scores), below))
        return seen

    with concurrent.futures.ThreadPoolExecutor(CALLERS) as pool:
        asking = [pool.submit(ask) for _ in range(CALLERS)]
        try:
            for revision in range(2, PUBLISHES + 2):
                (folder / "shop.yaml").write_text(catalog_of(revision))
                command = [sys.executable, "-m", "kirana", "apply", str(folder)]
                subprocess.run(command, check=True, capture_output=True)
        finally:
            stop.set()
        seen = [each for answers in asking for each in answers.result()]
    expected = {True: (3, False), False: (2, True)}
    assert {(n, below) for revision, n, below in seen} == set(expected.values())
    for revision, count, below in seen:
        assert (count, below) == expected[bool(revision % 2)], revision
