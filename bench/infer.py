"""Ids to scores, fused and without HTTP: 500 rows x 60 columns from LMDB, and one model."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from bench.feature_data import COLUMNS, NAMES, ROWS, catalog_text, copy_of, write_rows
from bench.figures import Report
from bench.floors.lmdb_loop import LmdbLoop, session
from bench.paired import compare
from kirana.catalog.directory import DirectoryCatalog
from kirana.features.service import FeatureService
from kirana.inferflow import InferRequest
from kirana.inferflow.engine import InferflowService
from kirana.models.files import ModelFiles
from kirana.models.loaded import LoadedModels
from kirana.models.registry import ModelRegistry
from kirana.request import RequestContext
from kirana.serving.checks import catalog_checks
from kirana.stores import open_feature_store
from kirana.stores.row_keys import row_keys
from kirana.stores.rows import RowKeys

HIDDEN = 64


def inferflow_text() -> str:
    """Return YAML to append to `catalog_text(1)`: a model, and an inferflow that calls it."""
    features = "\n".join(f"  - product.stats.{name}" for name in NAMES)
    return (
        "---\nkind: model\nname: mlp\npath: mlp.onnx\n---\nkind: inferflow\nname: ranker\n"
        "context: {product_id: product}\nrows: product_id\n"
        f"features:\n{features}\n"
        "models:\n  - {name: click, model: mlp, output: p_click}\nscore: p_click\n"
    )


def write_mlp(path: Path, *, hidden: int = HIDDEN, seed: int = 0) -> None:
    """Write an ONNX model of sigmoid(relu(x @ a) @ b), whose random weights depend on `seed`.

    `hidden` is the number of columns of `a`.
    """
    rng = np.random.default_rng(seed)
    weights = {
        "a": rng.standard_normal((COLUMNS, hidden)).astype(np.float32),
        "b": rng.standard_normal((hidden, 1)).astype(np.float32),
    }
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["features", "a"], ["hidden"]),
            helper.make_node("Relu", ["hidden"], ["active"]),
            helper.make_node("MatMul", ["active", "b"], ["logit"]),
            helper.make_node("Sigmoid", ["logit"], ["p_click"]),
        ],
        "mlp",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, [None, COLUMNS])],
        [helper.make_tensor_value_info("p_click", TensorProto.FLOAT, [None, 1])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    opset = helper.make_opsetid("", 17)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=9), path)


async def measure() -> Report:
    """Measure `infer_500x60_lmdb_vs_by_hand`: the time of a ranking request / of the work by hand.

    The work by hand is gets, `frombuffer` and ONNX Runtime, without status, expiry or defaults.
    """
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "catalog.yaml").write_text(catalog_text(1) + inferflow_text())
        write_mlp(folder / "mlp.onnx")
        files = ModelFiles(f"file://{folder}")
        source = DirectoryCatalog(folder, catalog_checks(files))
        revision = source.publish().revision
        features = FeatureService(open_feature_store(f"lmdb://{folder}/store"), source)
        service = InferflowService(
            features, ModelRegistry(LoadedModels(files.copies), source), source
        )
        ids = [str(n) for n in range(ROWS)]
        values = np.random.default_rng(0).random((ROWS, COLUMNS), dtype=np.float32)
        await write_rows(features, revision, ids, NAMES, values)
        keys = row_keys(RowKeys("product.stats", ids))
        loop = LmdbLoop(copy_of(folder / "store"), keys, COLUMNS)
        mlp = session(folder / "mlp.onnx")
        request = InferRequest("ranker", {"product_id": ids})
        context = RequestContext.begin(revision)

        async def kirana() -> object:
            return await service.infer(request, context)

        async def by_hand() -> object:
            return mlp.run(["p_click"], {"features": loop.matrix()})[0]

        # `compare` returns B's time / A's time, so the floor comes first.
        result = {"infer_500x60_lmdb_vs_by_hand": await compare(by_hand, kirana)}
        await features.close()
        return Report(result)
