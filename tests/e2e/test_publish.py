"""Publishes under load: no request fails, and no reply mixes two revisions."""

from __future__ import annotations

import concurrent.futures
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.e2e.shop_requests import PAUSE_S, WRITES
from tests.e2e.starts import kirana_up
from tests.support import SHOP, write_shop
from tests.waiting import wait_for

PUBLISHES = 20
INFER = {"context": {"user_id": "7", "product_id": ["1", "2", "3"]}}
FLOW = {"context": {"user_id": "7"}}

PATIENT = {"x-kirana-timeout-ms": "30000"}
"""Headers with a long timeout: a publish may be slow under this load, but it must succeed."""

DEPLOYMENTS = ("Ingress", "Flows", "Inferflow", "FeatureStore", "InteractionStore", "ModelReplica")
"""Deployments with two replicas in the spread placement. A revision may reach one replica later
than the other."""
APPLIES = 6
CALLERS = 4
SCORE = 'score: "p_click + 4 * p_order"'
TOP = "with: {k: 3}"


def catalog_of(revision: int) -> str:
    """Return the catalog that is published as this revision.

    In odd revisions, the flow returns three products. In even revisions, it returns two products,
    and each score is lower by 1,000.
    """
    if revision % 2:
        return SHOP
    changed = SHOP.replace(SCORE, 'score: "p_click + 4 * p_order - 1000"')
    return changed.replace(TOP, "with: {k: 2}")


def _options(placement: str, folder: Path) -> tuple[str, ...]:
    if placement == "fused":
        return ("--placement", "fused", "--replicas", "2")
    application = {
        "name": "kirana",
        "import_path": "kirana.graphs.serving:build",
        "args": {"placement": "spread"},
        "deployments": [{"name": name, "num_replicas": 2} for name in DEPLOYMENTS],
    }
    config = folder / "serve.yaml.txt"
    config.write_text(yaml.safe_dump({"applications": [application]}))
    return ("--config", str(config))


@pytest.fixture(scope="module", params=["fused", "spread"])
def placed(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[httpx.Client, Path]]:
    folder = write_shop(tmp_path_factory.mktemp("publish") / "shop")
    options = _options(request.param, folder)
    with kirana_up(folder, *options) as served:
        for call in WRITES:
            assert call.send(served.client).status_code == 200
        yield served.client, folder


def _direct_ports(client: httpx.Client) -> list[str]:
    endpoints = wait_for(
        lambda: (listed := client.get("/v1/endpoints").json()["endpoints"])[1:] and listed,
        "two direct ports",
    )
    return [endpoint["url"] for endpoint in endpoints]


def _wait_for_the_front_door(base: str, urls: list[str]) -> None:
    """Wait until HAProxy sends new connections to each replica.

    When HAProxy learns of a replica, it closes its idle connections. A request that is sent at that
    moment gets no answer, and no publish is the reason.
    """
    reached = set()

    def all_reached() -> bool:
        # A replica lists its own port first.
        reached.add(httpx.get(f"{base}/v1/endpoints").json()["endpoints"][0]["url"])
        return reached == set(urls)

    wait_for(all_reached, "the front door reaches both replicas")


@pytest.fixture
def shop(placed: tuple[httpx.Client, Path]) -> tuple[httpx.Client, Path]:
    """Wait until all replicas are on the newest revision, and return a client and the folder."""
    client, _ = placed
    newest = client.get("/v1/catalog").json()["history"][0]["revision"]
    urls = _direct_ports(client)
    wait_for(lambda: _all_on(urls, newest), f"all are on revision {newest}")
    _wait_for_the_front_door(str(client.base_url).rstrip("/"), urls)
    return placed


@pytest.mark.parametrize("placed", ["spread"], indirect=True)
def test_every_reply_uses_one_revision_on_all_replicas(
    shop: tuple[httpx.Client, Path],
) -> None:
    """This test must be the first on its Kirana: the replies depend on the revision number."""
    client, folder = shop
    stop = threading.Event()

    def run_flows() -> list[tuple[int, int, bool]]:
        seen = []
        with httpx.Client(base_url=client.base_url, headers=PATIENT, timeout=30) as thread_client:
            while not stop.wait(PAUSE_S):
                reply = thread_client.post("/v1/flows/for_you", json=FLOW)
                assert reply.status_code == 200, reply.text
                content = reply.json()
                scores = content["output"]["scores"]
                below = all(score < -500 for score in scores)
                assert below or all(score > -500 for score in scores)
                seen.append((content["revision"], len(scores), below))
        return seen

    with concurrent.futures.ThreadPoolExecutor(CALLERS) as pool:
        futures = [pool.submit(run_flows) for _ in range(CALLERS)]
        try:
            for revision in range(2, APPLIES + 2):
                (folder / "shop.yaml").write_text(catalog_of(revision))
                command = [sys.executable, "-m", "kirana", "apply", str(folder)]
                subprocess.run(command, check=True, capture_output=True)
        finally:
            stop.set()
        seen = [entry for future in futures for entry in future.result()]
    expected = {True: (3, False), False: (2, True)}
    assert {(n, below) for revision, n, below in seen} == set(expected.values())
    for revision, count, below in seen:
        assert (count, below) == expected[bool(revision % 2)], revision


class Load:
    """A thread that sends requests until the block ends.

    `failed` has the failures, and `seen` the revision and the scores of each successful reply.
    """

    def __init__(self, url: str, path: str, body: dict[str, Any]) -> None:
        self.failed: list[str] = []
        self.seen: list[tuple[int, list[float]]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(url, path, body))

    def _run(self, url: str, path: str, body: dict[str, Any]) -> None:
        with httpx.Client(base_url=url, headers=PATIENT, timeout=30) as client:
            while not self._stop.wait(PAUSE_S):
                try:
                    reply = client.post(path, json=body)
                except httpx.TransportError as error:
                    self.failed.append(repr(error))
                    continue
                if reply.status_code != 200:
                    self.failed.append(reply.text)
                    continue
                content = reply.json()
                scores = content["output"]["scores"] if "output" in content else content["scores"]
                self.seen.append((content["revision"], scores))

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def _scored(ranker: dict[str, Any], number: int) -> dict[str, Any]:
    """Return a ranker whose scores are all `number`, the revision in which it is published."""
    return {**ranker, "score": f"0 * p_click + {number}"}


def _all_on(urls: list[str], revision: int) -> bool:
    return all(httpx.get(f"{url}/v1/catalog").json()["revision"] == revision for url in urls)


def test_publishes_under_load_fail_no_request_and_mix_no_revisions(
    shop: tuple[httpx.Client, Path],
) -> None:
    client, folder = shop
    base = str(client.base_url).rstrip("/")
    doors = [base, *_direct_ports(client)]
    ranker = client.get("/v1/catalog/inferflow/ranker").json()
    number = ranker["revision"]
    put = f"{base}/v1/catalog/inferflow/ranker"
    first = httpx.put(
        put, json={"object": _scored(ranker["object"], number + 1)}, headers=PATIENT, timeout=30
    )
    assert first.json() == {"revision": number + 1}
    wait_for(lambda: _all_on(doors, number + 1), "all replicas are on the first revision")
    with (
        Load(base, "/v1/infer/ranker", INFER) as front,
        Load(doors[1], "/v1/infer/ranker", INFER) as direct,
        Load(base, "/v1/flows/for_you", FLOW) as flows,
    ):
        for revision in range(number + 2, number + 2 + PUBLISHES):
            body = {
                "object": _scored(ranker["object"], revision),
                "expected_revision": revision - 1,
            }
            reply = httpx.put(put, json=body, headers=PATIENT, timeout=30)
            assert reply.json() == {"revision": revision}, reply.text
            if revision % 5 == 0:
                wait_for(
                    lambda expected=revision: _all_on(doors, expected), "all doors use the revision"
                )
    for load in (front, direct, flows):
        assert load.failed == []
        assert load.seen
        assert [seen for seen in load.seen if {*seen[1]} - {seen[0]}] == []
    assert len({revision for revision, _ in direct.seen}) > 1
    command = [sys.executable, "-m", "kirana", "apply", str(folder)]
    applied = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "nothing has changed" in applied.stdout


def _together(flow: dict[str, Any], ranker: dict[str, Any], number: int) -> dict[str, Any]:
    """Return a request that publishes flow and ranker as one revision.

    In a reply, the scores are the revision of the ranker, and their count depends on the revision
    of the flow.
    """
    top = {**flow["nodes"]["top"], "with": {"k": _length(number)}}
    return {
        "objects": [{**flow, "nodes": {**flow["nodes"], "top": top}}, _scored(ranker, number)],
        "expected_revision": number - 1,
    }


def _length(revision: int) -> int:
    return 1 + revision % 3


def _ranks_on(url: str, revision: int) -> bool:
    """Return whether a door uses a revision for the ranker, and for the flow that calls it."""
    inferred = httpx.post(f"{url}/v1/infer/ranker", json=INFER, headers=PATIENT, timeout=30).json()
    listed = httpx.post(f"{url}/v1/flows/for_you", json=FLOW, headers=PATIENT, timeout=30).json()
    return bool(
        inferred["revision"] == listed["revision"] == revision
        and inferred["scores"] == [revision] * len(INFER["context"]["product_id"])
        and listed["output"]["scores"] == [revision] * _length(revision)
    )


def test_objects_of_one_revision_go_live_together(shop: tuple[httpx.Client, Path]) -> None:
    client, folder = shop
    base = str(client.base_url).rstrip("/")
    doors = [base, *_direct_ports(client)]
    ranker = client.get("/v1/catalog/inferflow/ranker").json()["object"]
    flow = client.get("/v1/catalog/flow/for_you").json()
    number = flow["revision"] + 1
    path = f"{base}/v1/catalog"
    first = httpx.post(
        path, json=_together(flow["object"], ranker, number), headers=PATIENT, timeout=30
    )
    assert first.json() == {"revision": number}, first.text
    wait_for(lambda: all(_ranks_on(url, number) for url in doors), "all doors use the first")
    with (
        Load(base, "/v1/flows/for_you", FLOW) as front,
        Load(doors[1], "/v1/flows/for_you", FLOW) as first_direct,
        Load(doors[2], "/v1/flows/for_you", FLOW) as second_direct,
    ):
        for revision in range(number + 1, number + 1 + PUBLISHES):
            body = _together(flow["object"], ranker, revision)
            reply = httpx.post(path, json=body, headers=PATIENT, timeout=30)
            assert reply.json() == {"revision": revision}, reply.text
            for url in doors:
                wait_for(
                    lambda url=url, expected=revision: _ranks_on(url, expected),
                    f"{url} is on revision {revision}",
                    timeout_s=10,
                )
    for load in (front, first_direct, second_direct):
        assert load.failed == []
        revisions = {revision for revision, _ in load.seen}
        assert len(revisions) > PUBLISHES // 2
        wrong = [
            (revision, scores)
            for revision, scores in load.seen
            if scores != [revision] * _length(revision)
        ]
        assert wrong == []
    command = [sys.executable, "-m", "kirana", "apply", str(folder)]
    applied = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "nothing has changed" in applied.stdout


def test_a_publish_that_expects_an_older_revision_is_refused_and_changes_nothing(
    shop: tuple[httpx.Client, Path],
) -> None:
    client, folder = shop
    ranker = client.get("/v1/catalog/inferflow/ranker").json()
    before = (folder / "shop.yaml").read_text()
    live = client.get("/v1/catalog").json()["revision"]
    body = {"object": _scored(ranker["object"], 1), "expected_revision": live - 1}
    late = client.put("/v1/catalog/inferflow/ranker", json=body)
    assert (late.status_code, late.json()["error"]["code"]) == (409, "conflict")
    broken = {**ranker["object"], "score": "p_click +"}
    wrong = client.put("/v1/catalog/inferflow/ranker", json={"object": broken})
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (400, "invalid_catalog")
    assert client.get("/v1/catalog").json()["revision"] == live
    assert (folder / "shop.yaml").read_text() == before
