"""A small shop for tests: a catalog, generated models, and the parts over LMDB."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import cast

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from kirana.catalog.changes import CatalogPublisher
from kirana.catalog.directory import DirectoryCatalog
from kirana.catalog.revisions import CatalogSource, LiveRevision
from kirana.cli.locations import local_settings
from kirana.doors.endpoints import Endpoints
from kirana.edge import Edge, Limits, Resources
from kirana.edge.resources import NoEndpoints
from kirana.features import Features
from kirana.features.part import FEATURES
from kirana.features.service import FeatureService
from kirana.flow import FlowRunner
from kirana.flow.executor import FlowService
from kirana.flow.part import FLOWS
from kirana.inferflow import InferflowRunner
from kirana.inferflow.engine import InferflowService
from kirana.inferflow.part import INFERFLOW
from kirana.interactions import InteractionSource
from kirana.interactions.part import INTERACTIONS
from kirana.interactions.service import InteractionService
from kirana.metrics import Metrics
from kirana.models.files import ModelFiles
from kirana.models.part import MODELS
from kirana.models.registry import ModelRegistry
from kirana.part import Parts
from kirana.request import RequestContext
from kirana.revision import Revision
from kirana.serving.assembly import Assembly, catalog_backend, open_catalog
from kirana.serving.checks import catalog_checks
from kirana.serving.settings import Settings


@dataclass(frozen=True, slots=True)
class ByOrder:
    """A codec for tests of stores. Rows never expire, and `write_order` is the given function."""

    write_order: Callable[[bytes], tuple[int, bool]]
    name: str = "packed"

    def expiry_s(self, value: bytes) -> int:
        return 0


SHOP = """
kind: entity
name: user
keys: [{name: user_id}]
---
kind: entity
name: product
keys: [{name: product_id}]
---
kind: entity
name: category
keys: [{name: category_id, dtype: int64}]
---
kind: entity
name: user_category
keys: [{name: user_id}, {name: category_id, dtype: int64}]
---
kind: feature_group
name: user.profile
ttl: 30d
features:
  - {name: age, dtype: int16, default: 30}
---
kind: feature_group
name: product.stats
ttl: 7d
features:
  - {name: clicks, dtype: int32, default: 0}
  - {name: ctr, dtype: float32, default: 0.5}
---
kind: feature_group
name: product.attrs
features:
  - {name: title, dtype: string, default: "?"}
  - {name: category_id, dtype: int64, default: 0}
  - {name: in_stock, dtype: bool, default: true}
---
kind: feature_group
name: product.similar
features:
  - {name: ids, dtype: int32, shape: [4]}
  - {name: weights, dtype: float32, shape: [4]}
---
kind: feature_group
name: category.stats
features:
  - {name: share, dtype: float64, default: 0.25}
---
kind: feature_group
name: user_category.affinity
features:
  - {name: clicks, dtype: float32, default: -1.0}
---
kind: event_type
name: click
keep: 50
---
kind: event_type
name: wishlist
keep: 3
ttl: 1d
repeats: latest
---
kind: candidate_generator
name: similar_products
generator: neighbours
with: {ids: product.similar.ids, weights: product.similar.weights, decay: 0.5}
---
kind: model
name: click_model
path: click/1/model.onnx
---
kind: model
name: order_model
path: order/1/model.onnx
---
kind: inferflow
name: ranker
context: {user_id: user, product_id: product}
rows: product_id
resolve: {category_id: product.attrs.category_id}
inputs: [{name: similar, default: 0.0}]
features:
  - input.similar
  - user.profile.age
  - product.stats.ctr
  - product.stats.clicks
  - product.attrs.in_stock
  - category.stats.share
  - user_category.affinity.clicks
models:
  - {name: click, model: click_model, output: p_click}
  - {name: order, model: order_model, output: p_order}
score: "p_click + 4 * p_order"
---
kind: flow
name: for_you
graph:
  recent: [similar]
  seen: [unseen]
  similar: [unseen]
  unseen: [ranked]
  ranked: [top]
  top: []
nodes:
  recent: {op: interactions, with: {event: click, last: 5}}
  seen: {op: interactions, with: {event: click, last: 50}}
  similar: {op: candidates, with: {cg_name: similar_products, limit: 10}}
  unseen: {op: filter}
  ranked: {op: infer, with: {model_id: ranker}}
  top: {op: top_k, with: {k: 3}}
"""

SHOP_WEIGHTS = {
    "click": [1.0, 0.0, 2.0, 0.0, 0.0, 1.0, 0.0],
    "order": [0.0, 0.01, 0.0, 0.001, 0.5, 0.0, 0.25],
}
"""Weights of the shop's linear models: one number per column of the matrix."""


def write_linear_model(path: Path, weights: Sequence[float], output: str) -> None:
    """Write an ONNX model that computes `output[:, 0] = matrix @ weights`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_linear_model(tuple(weights), output))


@cache
def _linear_model(weights: tuple[float, ...], output: str) -> bytes:
    matrix = np.array(weights, dtype=np.float32).reshape(-1, 1)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["features", "weights"], [output])],
        "linear",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, [None, len(weights)])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, [None, 1])],
        [numpy_helper.from_array(matrix, "weights")],
    )
    opset = helper.make_opsetid("", 17)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=9)
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString()
    return content


def write_slow_model(path: Path, columns: int, output: str, size: int) -> None:
    """Write an ONNX model that multiplies two matrices of `size` x `size` for each run.

    ONNX Runtime can't stop a run during the multiplication.
    """
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMean", ["features"], ["mean"], axes=[0, 1], keepdims=1),
            helper.make_node("Expand", ["mean", "shape"], ["large"]),
            helper.make_node("MatMul", ["large", "large"], ["product"]),
            helper.make_node("ReduceMean", ["product"], ["result"], axes=[0, 1], keepdims=1),
            helper.make_node("MatMul", ["features", "zeros"], ["rows"]),
            helper.make_node("Add", ["rows", "result"], [output]),
        ],
        "slow",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, [None, columns])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, [None, 1])],
        [
            numpy_helper.from_array(np.array([size, size], dtype=np.int64), "shape"),
            numpy_helper.from_array(np.zeros((columns, 1), dtype=np.float32), "zeros"),
        ],
    )
    opset = helper.make_opsetid("", 17)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=9)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())


def write_shop(folder: Path, catalog: str = SHOP) -> Path:
    """Write the shop's catalog and models to `folder`, and return the folder. Publish nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "shop.yaml").write_text(catalog)
    for name, weights in SHOP_WEIGHTS.items():
        write_linear_model(folder / "models" / name / "1" / "model.onnx", weights, f"p_{name}")
    return folder


def publish(folder: Path, *, models: bool = True) -> Revision:
    """Publish the catalog in `folder`, and return the revision.

    Without `models`, the model files are not opened.
    """
    files = ModelFiles(f"file://{folder}/models") if models else None
    return DirectoryCatalog(folder, catalog_checks(files)).publish().revision


def nth(source: CatalogSource, number: int) -> Revision:
    """Return revision `number` of the catalog that `source` has now."""
    if isinstance(source, DirectoryCatalog):
        # The source may be a test's subclass that counts calls. Don't add to its count.
        source = DirectoryCatalog(source.folder, catalog_checks())
    return Revision(source.current().catalog, number)


def request_at(source: CatalogSource, number: int = 1, now_ms: int | None = None) -> RequestContext:
    """Begin a request on revision `number`. `now_ms` replaces the current time."""
    return RequestContext.begin(nth(source, number), now_ms=now_ms)


@dataclass
class Shop:
    """All parts over the stores of one folder, and its published revision."""

    source: CatalogSource
    publisher: CatalogPublisher
    features: FeatureService
    interactions: InteractionService
    models: ModelRegistry
    inferflow: InferflowService
    flows: FlowService
    revision: Revision
    settings: Settings

    def request(self) -> RequestContext:
        """Begin a request on the published revision at the current time."""
        return RequestContext.begin(self.revision)

    async def edge(
        self,
        limits: Limits | None = None,
        *,
        endpoints: Endpoints | None = None,
        metrics: Metrics | None = None,
    ) -> Edge:
        parts = [self.features, self.interactions, self.models, self.inferflow, self.flows]
        live = LiveRevision(self.source, parts)
        await live.start()
        resources = Resources(
            self.served(),
            live,
            self.source,
            self.publisher,
            NoEndpoints() if endpoints is None else endpoints,
        )
        await resources.probes.check()
        return Edge(resources, limits, metrics)

    def served(
        self,
        *,
        features: Features | None = None,
        interactions: InteractionSource | None = None,
        flows: FlowRunner | None = None,
        inferflow: InferflowRunner | None = None,
    ) -> Parts:
        """Return the parts that the edge calls: the given ones, and the shop's own for the rest."""
        return Parts(
            {
                FEATURES: features or self.features,
                INTERACTIONS: interactions or self.interactions,
                FLOWS: flows or self.flows,
                INFERFLOW: inferflow or self.inferflow,
            }
        )

    async def close(self) -> None:
        await self.features.close()
        await self.interactions.close()


def open_shop(folder: Path) -> Shop:
    """Open the parts over `folder`, whose catalog must be published."""
    settings = local_settings(folder, {})
    source = open_catalog(settings)
    assembly = Assembly(settings, source)
    return Shop(
        source,
        catalog_backend(settings),
        cast(FeatureService, assembly[FEATURES]),
        cast(InteractionService, assembly[INTERACTIONS]),
        cast(ModelRegistry, assembly[MODELS]),
        cast(InferflowService, assembly[INFERFLOW]),
        cast(FlowService, assembly[FLOWS]),
        source.current(),
        settings,
    )
