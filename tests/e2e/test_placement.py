"""Fused into one replica, or parts in deployments of their own: the same answers at every door."""

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
from tests.e2e.prometheus import counts, figures_url
from tests.e2e.shop_requests import BAD, READS, WRITES, Call, generated_calls
from tests.e2e.starts import kirana_up
from tests.support import write_shop
from tests.waiting import wait_for

PLACEMENTS = ("fused", "spread", "models=spread,features=spread")
CALLS = [*WRITES, *READS, *(each[0] for each in BAD), *generated_calls(300)]
DOORS = ("serve", "direct")
ASKED_MEANWHILE = {"healthz", "endpoints"}
"""Routes that the test itself asks while it starts."""

Answer = tuple[int, object]


@dataclass(frozen=True)
class Asked:
    """The answers to all calls, each sent to the front door and then to the direct port."""

    answers: list[tuple[Answer, Answer]]
    requests: Counter[tuple[str, ...]]
    """As the ingress counted them: by door, route and status."""
    calls: Counter[tuple[str, ...]]
    """As the deployments counted them: by deployment and method."""


def _route(call: Call) -> str:
    segments = call.path.partition("?")[0].split("/")[1:]
    for spec in ROUTES:
        pairs = list(zip(spec.segments, segments, strict=False))
        same = len(segments) == len(spec.segments) and all(a in (None, b) for a, b in pairs)
        if same and spec.method == call.method:
            return spec.name
    return "none"


def _comparable(value: Any) -> Any:
    """Leave out the times, and the identity that each shop's catalog has."""
    return {name: each for name, each in value.items() if name not in ("age_ms", "catalog")}


def _answer(call: Call, client: httpx.Client) -> Answer:
    reply = call.send(client)
    return reply.status_code, _comparable(reply.json())


def _sent(answers: list[tuple[Answer, Answer]]) -> Counter[tuple[str, ...]]:
    found: Counter[tuple[str, ...]] = Counter()
    for call, pair in zip(CALLS, answers, strict=True):
        for door, (status, _) in zip(DOORS, pair, strict=True):
            found[door, _route(call), str(status)] += 1
    return found


@contextmanager
def _doors(folder: Path, placement: str) -> Iterator[tuple[httpx.Client, httpx.Client, str]]:
    """Yield a client of the front door, one of the direct port, and where the figures are."""
    shop = write_shop(folder / "shop")
    with kirana_up(shop, "--placement", placement) as served:
        (endpoint,) = served.client.get("/v1/endpoints").json()["endpoints"]
        with httpx.Client(base_url=endpoint["url"], timeout=30) as direct:
            yield (
                served.client,
                direct,
                wait_for(lambda: figures_url(shop / "up.log"), "the URL of the figures"),
            )


def _ask(folder: Path, placement: str) -> Asked:
    with _doors(folder, placement) as (front, direct, figures):
        answers = [(_answer(call, front), _answer(call, direct)) for call in CALLS]
        sent = _sent(answers)

        def requests() -> Counter[tuple[str, ...]]:
            found = counts(figures, "ray_kirana_requests_total", "door", "route", "status")
            return Counter({key: n for key, n in found.items() if key[1] not in ASKED_MEANWHILE})

        def calls() -> Counter[tuple[str, ...]]:
            return counts(figures, "ray_kirana_calls_total", "deployment", "method")

        wait_for(lambda: requests().total() >= sent.total(), "all requests among the figures")
        if placement != "fused":
            wait_for(calls, "calls among the figures")
        return Asked(answers, requests(), calls())


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Asked]:
    """By placement; all at a time, because much of it is waiting for the figures."""
    folders = [tmp_path_factory.mktemp("placed") for _ in PLACEMENTS]
    with ThreadPoolExecutor(len(PLACEMENTS)) as pool:
        return dict(zip(PLACEMENTS, pool.map(_ask, folders, PLACEMENTS), strict=True))


@pytest.mark.parametrize("placement", PLACEMENTS[1:])
def test_every_placement_answers_as_fused_does(asked: dict[str, Asked], placement: str) -> None:
    pairs = zip(CALLS, asked[placement].answers, asked["fused"].answers, strict=True)
    assert [(call, here, fused) for call, here, fused in pairs if here != fused] == []


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_the_direct_port_answers_as_the_front_door_does(
    asked: dict[str, Asked], placement: str
) -> None:
    """All but deletions, which find nothing the second time."""
    different = [
        (call, front, direct)
        for call, (front, direct) in zip(CALLS, asked[placement].answers, strict=True)
        if front != direct and call.method != "DELETE" and call.path != "/v1/features/delete"
    ]
    assert different == []


def test_the_requests_are_good_and_bad_and_of_every_route(asked: dict[str, Asked]) -> None:
    sent = _sent(asked["fused"].answers)
    statuses = Counter(status for (_, _, status), n in sent.items() for _ in range(n))
    assert statuses.keys() == {"200", "400", "404", "405"}
    assert statuses["200"] > 400
    assert statuses["400"] + statuses["404"] > 80
    assert {route for _, route, _ in sent} == {
        "none",
        *(each.name for each in ROUTES if each.name not in ASKED_MEANWHILE),
    }


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_the_ingress_counts_what_was_sent_to_each_door(
    asked: dict[str, Asked], placement: str
) -> None:
    assert asked[placement].requests == _sent(asked[placement].answers)


def test_spread_reaches_every_deployment(asked: dict[str, Asked]) -> None:
    calls = asked["spread"].calls
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


def test_a_mixed_placement_reaches_what_it_spreads_and_nothing_else(
    asked: dict[str, Asked],
) -> None:
    calls = asked["models=spread,features=spread"].calls
    assert {deployment for deployment, _ in calls} == {"FeatureStore", "ModelReplica"}
    assert calls["ModelReplica", "run"] > 0
