"""The catalog and the requests of the benchmark `serve`."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from bench.feature_data import COLUMNS, NAMES, PRODUCTS, catalog_text, write_rows
from bench.infer import inferflow_text, write_mlp
from kirana.cli.locations import local_settings
from kirana.features.part import FEATURES
from kirana.features.service import FeatureService
from kirana.serving.assembly import Assembly, catalog_backend, open_catalog
from kirana.serving.settings import Settings

ROWS = {"direct": 2_500, "haproxy": 5_500}
"""Rows of a request by door. With 60 columns each, it costs more than twenty no-ops of the door."""
BODIES = 64
RANK = "/v1/infer/ranker"
LIMIT_MS = 50
"""The time limit of each case in `CASES`. The slow model takes many times as long."""

SLOW_SIZE, SLOW_STEPS = 600, 400

_REGION = """
---
kind: entity
name: region
keys: [{name: region}]
---
kind: feature_group
name: region.top
ttl: 7d
features:
  - {name: ids, dtype: int64, shape: [5], default: [1, 2, 3, 4, 5]}
  - {name: weights, dtype: float32, shape: [5], default: [5, 4, 3, 2, 1]}
---
kind: candidate_generator
name: top
generator: stored_list
with: {ids: region.top.ids, weights: region.top.weights, keys: {region: all}}
"""


def _slow_text() -> str:
    """Return YAML of an inferflow with the slow model, and of two flows that limit its time."""
    ranker = inferflow_text().replace("mlp", "slow").replace("name: ranker", "name: slow_ranker")
    flows = "".join(
        f"---\nkind: flow\nname: {name}\ngraph: {{top: [ranked], ranked: []}}\n"
        "nodes:\n  top: {op: candidates, with: {cg_name: top, limit: 5}}\n"
        f"  ranked: {{op: infer, with: {{model_id: slow_ranker}}, timeout_ms: {LIMIT_MS}{more}}}\n"
        for name, more in (("limited", ""), ("hasty", ", fallback: empty"))
    )
    return ranker + _REGION + flows


@dataclass(frozen=True, slots=True)
class Case:
    """A request that takes longer than its limit, and the status of its reply."""

    name: str
    path: str
    body: bytes
    status: int
    headers: dict[str, str]


_SLOW = json.dumps({"context": {"product_id": ["1", "2", "3"]}}).encode()
_EMPTY = b'{"context": {}}'
CASES = (
    Case("deadline", "/v1/infer/slow_ranker", _SLOW, 504, {"x-kirana-timeout-ms": str(LIMIT_MS)}),
    Case("time limit of a node", "/v1/flows/limited", _EMPTY, 504, {}),
    Case("fallback", "/v1/flows/hasty", _EMPTY, 200, {}),
)


@dataclass(frozen=True, slots=True)
class ServeFixture:
    """A published catalog with its models, features in LMDB, and ranking requests."""

    folder: Path
    settings: Settings
    bodies: dict[str, list[bytes]]
    """The bodies of ranking requests, by door."""


async def make_fixture(folder: Path) -> ServeFixture:
    (folder / "catalog.yaml").write_text(catalog_text(1) + inferflow_text() + _slow_text())
    (folder / "models").mkdir()
    write_mlp(folder / "models/mlp.onnx")
    _write_slow_model(folder / "models/slow.onnx")
    settings = local_settings(folder, {})
    await asyncio.to_thread(catalog_backend(settings).publish)
    rng = np.random.default_rng(0)
    values = rng.random((PRODUCTS, COLUMNS), dtype=np.float32)
    bodies = {door: [_body(rng, rows) for _ in range(BODIES)] for door, rows in ROWS.items()}
    source = open_catalog(settings)
    service = Assembly(settings, source)[FEATURES]
    assert isinstance(service, FeatureService)
    await write_rows(service, source.current(), [str(n) for n in range(PRODUCTS)], NAMES, values)
    await service.close()
    return ServeFixture(folder, settings, bodies)


def _body(rng: np.random.Generator, rows: int) -> bytes:
    ids = rng.choice(PRODUCTS, rows, replace=False).astype(str).tolist()
    return json.dumps({"context": {"product_id": ids}, "top_k": 50}).encode()


def _write_slow_model(path: Path) -> None:
    """Write a model of `SLOW_STEPS` products of matrices, each of which takes a few milliseconds.

    Its runs can be stopped between two steps.
    """
    steps = [
        helper.make_node("MatMul", [f"m{step}", "unit"], [f"m{step + 1}"])
        for step in range(SLOW_STEPS)
    ]
    nodes = [
        helper.make_node("ReduceMean", ["features"], ["mean"], axes=[0, 1], keepdims=1),
        helper.make_node("Expand", ["mean", "shape"], ["m0"]),
        *steps,
        helper.make_node("ReduceMean", [f"m{SLOW_STEPS}"], ["result"], axes=[0, 1], keepdims=1),
        helper.make_node("MatMul", ["features", "zeros"], ["rows"]),
        helper.make_node("Add", ["rows", "result"], ["p_click"]),
    ]
    constants: dict[str, npt.NDArray[Any]] = {
        "shape": np.array([SLOW_SIZE, SLOW_SIZE], dtype=np.int64),
        "unit": np.eye(SLOW_SIZE, dtype=np.float32),
        "zeros": np.zeros((COLUMNS, 1), dtype=np.float32),
    }
    graph = helper.make_graph(
        nodes,
        "slow",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, [None, COLUMNS])],
        [helper.make_tensor_value_info("p_click", TensorProto.FLOAT, [None, 1])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opset = helper.make_opsetid("", 17)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=9), path)
