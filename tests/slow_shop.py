"""A shop whose click model is slow, with a flow that waits for the model for only 20 ms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.support import SHOP, write_shop, write_slow_model

HASTY = "/v1/flows/hasty"
HASTY_REQUEST = {"context": {"user_id": "7"}, "trace": True}
_HASTY_FLOW = """
---
kind: flow
name: hasty
graph:
  recent: [similar]
  similar: [ranked]
  ranked: []
nodes:
  recent: {op: interactions, with: {event: click, last: 5}}
  similar: {op: candidates, with: {cg_name: similar_products, limit: 10}}
  ranked: {op: infer, with: {model_id: ranker}, timeout_ms: 20, fallback: empty}
"""

INFER = "/v1/infer/ranker"
INFER_REQUEST = {"context": {"user_id": "7", "product_id": ["2", "3"]}}

HISTORY: list[tuple[str, dict[str, Any]]] = [
    (
        "/v1/features/put",
        {
            "group": "product.similar",
            "keys": {"product_id": ["1"]},
            "columns": {"ids": [[2, 3, 4, 5]], "weights": [[1.0, 0.9, 0.8, 0.7]]},
        },
    ),
    (
        "/v1/interactions",
        {
            "events": [
                {
                    "user_id": "7",
                    "event": "click",
                    "product_id": "1",
                    "timestamp": 1_700_000_000_000,
                }
            ]
        },
    ),
]
"""Paths and bodies of POSTs that write a click of user 7, and products similar to the clicked one.

Without these, the flow finds no candidates and does not run the model.
"""


def write_slow_shop(folder: Path, size: int) -> Path:
    """Write the shop to `folder`, and return the folder.

    For each run, the slow model multiplies two matrices of `size` x `size`.
    """
    write_shop(folder, SHOP + _HASTY_FLOW)
    write_slow_model(folder / "models/click/1/model.onnx", 7, "p_click", size)
    return folder


def states_of(flow_reply: dict[str, Any]) -> dict[str, str]:
    """Return the state of each node in the trace of a flow's reply."""
    return {span["node"]: span["state"] for span in flow_reply["trace"]}
