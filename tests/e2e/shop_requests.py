"""Requests to the shop, good and bad, for tests that send the same through several doors."""

from __future__ import annotations

from typing import Any, NamedTuple

import httpx

from tests.support import SHOP_WEIGHTS

NOW_MS = 1_700_000_000_000


class Call(NamedTuple):
    method: str
    path: str
    body: Any = None

    def send(self, client: httpx.Client) -> httpx.Response:
        return client.request(self.method, self.path, json=self.body)


PRODUCTS = [str(each) for each in range(1, 13)]

WRITES = [
    Call(
        "POST",
        "/v1/features/put",
        {
            "group": "product.stats",
            "keys": {"product_id": PRODUCTS},
            "columns": {
                "clicks": list(range(12)),
                "ctr": [each / 16 for each in range(12)],
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
                "title": [f"product {each}" for each in PRODUCTS],
                "category_id": [each % 3 for each in range(12)],
                "in_stock": [each % 2 == 0 for each in range(12)],
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
                "ids": [[(each + step) % 12 + 1 for step in (1, 2, 3, 4)] for each in range(12)],
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
                {"user_id": 7, "event": "click", "product_id": each, "timestamp": NOW_MS + each}
                for each in (1, 2, 3)
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
]

BAD: list[tuple[Call, int, str, str | None]] = [
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
                    {"user_id": 1, "event": "click", "product_id": 1, "timestamp": 1},
                    {"user_id": 1, "event": "clack", "product_id": 1, "timestamp": 1},
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


def expected_scores(matrix: list[list[float]]) -> list[float]:
    """Return the shop's score of each row, by hand."""
    scores = []
    for row in matrix:
        click = sum(a * b for a, b in zip(row, SHOP_WEIGHTS["click"], strict=True))
        order = sum(a * b for a, b in zip(row, SHOP_WEIGHTS["order"], strict=True))
        scores.append(click + 4 * order)
    return scores
