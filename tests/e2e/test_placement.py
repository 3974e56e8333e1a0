"""Every placement returns the same replies at every door, and uses the expected deployments."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from kirana.edge.routes import ROUTES
from tests.e2e.prometheus import counts, metrics_url
from tests.e2e.shop_requests import (
    BAD,
    READS,
    UNCHANGING_PUBLISHES,
    WRITES,
    Call,
    generated_calls,
)
from tests.e2e.starts import kirana_up
from tests.support import write_shop
from tests.waiting import wait_for

PLACEMENTS = ("fused", "spread", "models=spread,features=spread")
CALLS = [
    *WRITES,
    *READS,
    *UNCHANGING_PUBLISHES,
    *(entry[0] for entry in BAD),
    *generated_calls(300),
]
DOORS = ("serve", "direct")
ROUTES_USED_AT_START = {"healthz", "endpoints"}
"""Routes that are called while Kirana starts, so their number of requests varies."""

Answer = tuple[int, object]


@dataclass(frozen=True)
class Results:
    """The replies to all calls, each sent to the front door and then to the direct port."""

    answers: list[tuple[Answer, Answer]]
    requests: Counter[tuple[str, ...]]
    """The number of requests by door, route and status, as the ingress counted them."""
    calls: Counter[tuple[str, ...]]
    """The number of calls by deployment and method, as the deployments counted them."""


def _route(call: Call) -> str:
    segments = call.path.partition("?")[0].split("/")[1:]
    for route in ROUTES:
        pairs = list(zip(route.segments, segments, strict=False))
        matches = len(segments) == len(route.segments) and all(a in (None, b) for a, b in pairs)
        if matches and route.method == call.method:
            return route.name
    return "none"


def _comparable(value: Any) -> Any:
    """Return a reply without the fields that differ between runs: `age_ms` and `catalog`."""
    return {name: item for name, item in value.items() if name not in ("age_ms", "catalog")}


def _answer(call: Call, client: httpx.Client) -> Answer:
    reply = call.send(client)
    return reply.status_code, _comparable(reply.json())


def _sent(answers: list[tuple[Answer, Answer]]) -> Counter[tuple[str, ...]]:
    requests: Counter[tuple[str, ...]] = Counter()
    for call, pair in zip(CALLS, answers, strict=True):
        for door, (status, _) in zip(DOORS, pair, strict=True):
            requests[door, _route(call), str(status)] += 1
    return requests


@contextmanager
def _doors(folder: Path, placement: str) -> Iterator[tuple[httpx.Client, httpx.Client, str]]:
    """Yield a client of the front door, one of the direct port, and the URL of the metrics."""
    shop = write_shop(folder / "shop")
    with kirana_up(shop, "--placement", placement) as served:
        (endpoint,) = served.client.get("/v1/endpoints").json()["endpoints"]
        with httpx.Client(base_url=endpoint["url"], timeout=30) as direct:
            yield (
                served.client,
                direct,
                wait_for(lambda: metrics_url(shop / "up.log"), "the log has the metrics' URL"),
            )


def _send_calls(folder: Path, placement: str) -> Results:
    with _doors(folder, placement) as (front, direct, metrics):
        answers = [(_answer(call, front), _answer(call, direct)) for call in CALLS]
        sent = _sent(answers)

        def requests() -> Counter[tuple[str, ...]]:
            by_route = counts(metrics, "ray_kirana_requests_total", "door", "route", "status")
            return Counter(
                {key: n for key, n in by_route.items() if key[1] not in ROUTES_USED_AT_START}
            )

        def calls() -> Counter[tuple[str, ...]]:
            return counts(metrics, "ray_kirana_calls_total", "deployment", "method")

        wait_for(lambda: requests().total() >= sent.total(), "the metrics count all requests")
        if placement != "fused":
            wait_for(calls, "the metrics count calls")
        return Results(answers, requests(), calls())


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Results]:
    """Return the results by placement. All placements run at the same time."""
    folders = [tmp_path_factory.mktemp("placed") for _ in PLACEMENTS]
    with ThreadPoolExecutor(len(PLACEMENTS)) as pool:
        return dict(zip(PLACEMENTS, pool.map(_send_calls, folders, PLACEMENTS), strict=True))


@pytest.mark.parametrize("placement", PLACEMENTS[1:])
def test_every_placement_answers_as_fused_does(results: dict[str, Results], placement: str) -> None:
    pairs = zip(CALLS, results[placement].answers, results["fused"].answers, strict=True)
    assert [
        (call, replies, fused_replies)
        for call, replies, fused_replies in pairs
        if replies != fused_replies
    ] == []


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_the_direct_port_answers_as_the_front_door_does(
    results: dict[str, Results], placement: str
) -> None:
    """Deletions are left out, because the second one finds nothing to delete."""
    different = [
        (call, front, direct)
        for call, (front, direct) in zip(CALLS, results[placement].answers, strict=True)
        if front != direct and call.method != "DELETE" and call.path != "/v1/features/delete"
    ]
    assert different == []


def test_the_calls_include_errors_and_every_route(results: dict[str, Results]) -> None:
    sent = _sent(results["fused"].answers)
    statuses = Counter(status for (_, _, status), n in sent.items() for _ in range(n))
    assert statuses.keys() == {"200", "400", "404", "405"}
    assert statuses["200"] > 400
    assert statuses["400"] + statuses["404"] > 80
    assert {route for _, route, _ in sent} == {
        "none",
        *(route.name for route in ROUTES if route.name not in ROUTES_USED_AT_START),
    }


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_the_ingress_counts_the_requests_to_each_door(
    results: dict[str, Results], placement: str
) -> None:
    assert results[placement].requests == _sent(results[placement].answers)


def test_the_spread_placement_reaches_every_deployment(results: dict[str, Results]) -> None:
    calls = results["spread"].calls
    assert {name for name, n in calls.items() if n > 0} >= {
        ("FeatureStore", "read"),
        ("FeatureStore", "write"),
        ("FeatureStore", "delete"),
        ("InteractionStore", "append"),
        ("InteractionStore", "query"),
        ("InteractionStore", "forget"),
        ("ModelReplica", "run"),
        ("Inferflow", "infer"),
        ("Flows", "run"),
    }
    flows = sum(call.path.startswith("/v1/flows/") and call.method == "POST" for call in CALLS)
    assert 0 < calls["Flows", "run"] <= 2 * flows


def test_a_mixed_placement_reaches_only_the_parts_that_are_spread(
    results: dict[str, Results],
) -> None:
    calls = results["models=spread,features=spread"].calls
    assert {deployment for deployment, _ in calls} == {"FeatureStore", "ModelReplica"}
    assert calls["ModelReplica", "run"] > 0
