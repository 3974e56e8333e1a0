"""Valid and invalid requests to the shop of `tests.support`, which tests send to several doors."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, NamedTuple

import httpx

from tests.support import SHOP_WEIGHTS

NOW_MS = 1_700_000_000_000


class Call(NamedTuple):
    """A request. `body` is sent as JSON, or unchanged if it is bytes."""

    method: str
    path: str
    body: Any = None

    def send(self, client: httpx.Client) -> httpx.Response:
        if isinstance(self.body, bytes):
            return client.request(self.method, self.path, content=self.body)
        return client.request(self.method, self.path, json=self.body)


PAUSE_S = 0.005
"""Seconds that a caller waits between requests, so that a load leaves CPU time to other tests."""

PRODUCTS = [str(n) for n in range(1, 13)]

WRITES = [
    Call(
        "POST",
        "/v1/features/put",
        {
            "group": "product.stats",
            "keys": {"product_id": PRODUCTS},
            "columns": {
                "clicks": list(range(12)),
                "ctr": [n / 16 for n in range(12)],
            },
        },
    ),
    Call(
        "POST",
        "/v1/features/put",
        {
            "group": "product.attrs",
            "keys": {"product_id": PRODUCTS},
            "columns": {
                "title": [f"product {id_}" for id_ in PRODUCTS],
                "category_id": [n % 3 for n in range(12)],
                "in_stock": [n % 2 == 0 for n in range(12)],
            },
        },
    ),
    Call(
        "POST",
        "/v1/features/put",
        {
            "group": "product.similar",
            "keys": {"product_id": PRODUCTS},
            "columns": {
                "ids": [[(n + step) % 12 + 1 for step in (1, 2, 3, 4)] for n in range(12)],
                "weights": [[0.9, 0.5, 0.25, 0.125]] * 12,
            },
        },
    ),
    Call(
        "POST",
        "/v1/features/put",
        {
            "group": "user_category.affinity",
            "keys": {"user_id": "7", "category_id": [0, 1, 2]},
            "columns": {"clicks": [1.0, None, 3.0]},
        },
    ),
    Call(
        "POST",
        "/v1/features/put",
        {"group": "user.profile", "keys": {"user_id": ["7"]}, "columns": {"age": [41]}},
    ),
    Call(
        "POST",
        "/v1/interactions",
        {
            "events": [
                {"user_id": 7, "event": "click", "product_id": n, "timestamp": NOW_MS + n}
                for n in (1, 2, 3)
            ]
        },
    ),
]

READS = [
    Call(
        "POST",
        "/v1/features/get",
        {
            "entity": "product",
            "keys": {"product_id": ["1", 2, "nobody"]},
            "features": ["stats.ctr", "attrs.title", "attrs.in_stock", "similar.ids"],
        },
    ),
    Call("GET", "/v1/interactions/7/click?last=2"),
    Call("GET", f"/v1/interactions/7/click?since={NOW_MS + 2}&until={NOW_MS + 3}"),
    Call("POST", "/v1/interactions/query", {"user_ids": [7, 8], "events": ["click", "wishlist"]}),
    Call("POST", "/v1/flows/for_you", {"context": {"user_id": "7"}}),
    Call("POST", "/v1/flows/for_you", {"context": {"user_id": "a stranger"}}),
    Call(
        "POST",
        "/v1/infer/ranker",
        {
            "context": {"user_id": 7, "product_id": ["3", 1, "nobody"]},
            "inputs": {"similar": [0.5, 1, 2.5]},
            "return": ["outputs", "matrix"],
        },
    ),
    Call(
        "POST",
        "/v1/infer/ranker",
        {"context": {"user_id": 7, "product_id": PRODUCTS}, "top_k": 4},
    ),
    Call("GET", "/openapi.json"),
    Call("GET", "/v1/catalog?history=0"),
    Call("GET", "/v1/catalog/feature_group/product.stats"),
]

UNCHANGING_PUBLISHES = [
    Call("PUT", "/v1/catalog/event_type/click", {"object": {"keep": 50}}),
    Call("POST", "/v1/catalog", {"objects": [{"kind": "event_type", "name": "click", "keep": 50}]}),
]
"""Publishes of objects that are live already."""

BAD: list[tuple[Call, int, str, str | None]] = [
    (Call("DELETE", "/v1/catalog/entity/user"), 400, "invalid_catalog", None),
    (Call("GET", "/v1/catalog/entity/nobody"), 404, "unknown_entity", "name"),
    (Call("POST", "/v1/infer/nobody", {"context": {}}), 404, "unknown_model_id", "model_id"),
    (Call("POST", "/v1/flows/nobody", {"context": {}}), 404, "unknown_flow", "name"),
    (
        Call(
            "POST",
            "/v1/features/get",
            {"entity": "product", "keys": {"product_id": ["1"]}, "features": ["stats.ctx"]},
        ),
        404,
        "unknown_feature",
        "features[0]",
    ),
    (
        Call("POST", "/v1/features/get", {"entity": "shop", "keys": {}, "features": ["a.b"]}),
        404,
        "unknown_entity",
        "entity",
    ),
    (
        Call(
            "POST",
            "/v1/interactions",
            {
                "events": [
                    {"user_id": 1, "event": "click", "product_id": 1, "timestamp": NOW_MS},
                    {"user_id": 1, "event": "clack", "product_id": 1, "timestamp": NOW_MS},
                ]
            },
        ),
        404,
        "unknown_event_type",
        "events[1].event",
    ),
    (Call("GET", "/v1/interactions/7/clack"), 404, "unknown_event_type", "event"),
    (
        Call("POST", "/v1/infer/ranker", {"context": {"user_id": 7, "product_id": []}}),
        400,
        "invalid_input",
        "context.product_id",
    ),
    (
        Call("POST", "/v1/infer/ranker", {"context": {"product_id": ["1"]}}),
        400,
        "invalid_input",
        "context.user_id",
    ),
    (Call("POST", "/v1/flows/for_you", {"context": {}}), 400, "invalid_input", "context.user_id"),
    (Call("POST", "/v1/flows/for_you", {"kontext": {}}), 400, "invalid_input", "kontext"),
    (Call("GET", "/v1/nothing"), 404, "not_found", None),
    (Call("DELETE", "/v1/flows/for_you"), 405, "method_not_allowed", None),
]
"""Requests that are refused, each with the status, code and field of the error."""


def expected_scores(matrix: list[list[float]]) -> list[float]:
    """Return the shop's score for each row, computed without its models."""
    scores = []
    for row in matrix:
        click = sum(a * b for a, b in zip(row, SHOP_WEIGHTS["click"], strict=True))
        order = sum(a * b for a, b in zip(row, SHOP_WEIGHTS["order"], strict=True))
        scores.append(click + 4 * order)
    return scores


def generated_calls(count: int, seed: int = 1) -> list[Call]:
    """Return random requests, valid and invalid. The same seed gives the same requests."""
    chance = random.Random(seed)
    kinds: list[tuple[Callable[[random.Random], Call], int]] = [
        (_put, 4),
        (_get, 5),
        (_delete, 1),
        (_events, 3),
        (_history, 2),
        (_histories, 1),
        (_forget, 1),
        (_flow, 4),
        (_infer, 5),
        (_wrong, 4),
    ]
    makers, weights = zip(*kinds, strict=True)
    return [make(chance) for make in chance.choices(makers, weights, k=count)]


def _some(chance: random.Random, among: list[str], most: int) -> list[str]:
    return chance.sample(among, chance.randint(1, most))


def _user(chance: random.Random) -> str:
    return str(chance.randint(1, 9))


def _event_time(chance: random.Random) -> dict[str, int]:
    """Return a field with an old event time in 30% of the calls, else {} for the current time.

    A write with an old time is stale if a newer row is stored.
    """
    return {"event_time": NOW_MS + chance.randint(0, 9)} if chance.random() < 0.3 else {}


def _put(chance: random.Random) -> Call:
    keys = _some(chance, PRODUCTS, 8)
    columns_of_group: dict[str, dict[str, list[Any]]] = {
        "stats": {
            "clicks": [chance.choice([None, chance.randint(0, 99)]) for _ in keys],
            "ctr": [chance.randint(0, 64) / 64 for _ in keys],
        },
        "attrs": {
            "title": [chance.choice(["", "a", "\u00e4\u0939\U0001f600"]) for _ in keys],
            "category_id": [chance.randint(0, 3) for _ in keys],
        },
        "similar": {
            "ids": [[int(id_) for id_ in chance.sample(PRODUCTS, 4)] for _ in keys],
            "weights": [[0.75, 0.5, 0.25, 0.125] for _ in keys],
        },
    }
    group = chance.choice(sorted(columns_of_group))
    body = {
        "group": f"product.{group}",
        "keys": {"product_id": keys},
        "columns": columns_of_group[group],
    }
    return Call("POST", "/v1/features/put", body | _event_time(chance))


def _get(chance: random.Random) -> Call:
    names = ["stats.ctr", "stats.clicks", "attrs.title", "attrs.in_stock", "similar.weights"]
    body = {
        "entity": "product",
        "keys": {"product_id": _some(chance, [*PRODUCTS, "nobody"], 10)},
        "features": _some(chance, names, 4),
        "provenance": chance.random() < 0.3,
    }
    return Call("POST", "/v1/features/get", body)


def _delete(chance: random.Random) -> Call:
    body = {
        "group": chance.choice(["product.stats", "product.attrs"]),
        "keys": {"product_id": _some(chance, PRODUCTS, 3)},
    }
    return Call("POST", "/v1/features/delete", body | _event_time(chance))


def _events(chance: random.Random) -> Call:
    events = [
        {
            "user_id": _user(chance),
            "event": chance.choice(["click", "wishlist"]),
            "product_id": int(chance.choice(PRODUCTS)),
            "timestamp": NOW_MS + chance.randint(0, 10_000),
        }
        for _ in range(chance.randint(1, 12))
    ]
    return Call("POST", "/v1/interactions", {"events": events})


def _history(chance: random.Random) -> Call:
    query = chance.choice(
        ["", "?last=3", f"?since={NOW_MS + 5_000}", f"?since={NOW_MS + 9}&until={NOW_MS + 8}"]
    )
    return Call("GET", f"/v1/interactions/{_user(chance)}/click{query}")


def _histories(chance: random.Random) -> Call:
    users = [_user(chance) for _ in range(chance.randint(1, 5))]
    return Call(
        "POST",
        "/v1/interactions/query",
        {"user_ids": users, "events": ["click", "wishlist"], "last": 4},
    )


def _forget(chance: random.Random) -> Call:
    return Call("DELETE", f"/v1/interactions/{_user(chance)}")


def _flow(chance: random.Random) -> Call:
    return Call("POST", "/v1/flows/for_you", {"context": {"user_id": _user(chance)}})


def _infer(chance: random.Random) -> Call:
    products = _some(chance, [*PRODUCTS, "nobody"], 10)
    body: dict[str, Any] = {
        "context": {"user_id": _user(chance), "product_id": products},
        "inputs": {"similar": [chance.randint(0, 8) / 4 for _ in products]},
        "return": chance.choice([[], ["matrix"], ["outputs", "matrix"]]),
    }
    if chance.random() < 0.3:
        body["top_k"] = chance.randint(1, 5)
    return Call("POST", "/v1/infer/ranker", body)


def _wrong(chance: random.Random) -> Call:
    broken_body = Call("POST", "/v1/infer/ranker", chance.choice([b"{", b"\xff", b"", b"[]"]))
    wrong_query = Call("GET", "/v1/interactions/7/click?last=many")
    return chance.choice([*(entry[0] for entry in BAD), broken_body, wrong_query])
