"""Training of the two rankers on simulated requests, and their export to ONNX."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import FloatTensorType
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from kirana.demo.dataset import Events, FloatArray, MovieLens, split_by_time
from kirana.demo.jobs import LIKED_RATING
from kirana.demo.protocol import sample_points
from kirana.demo.simulation import COLUMNS, BoolArray, build_tables, collect_samples

TRAIN_PAST_SHARE = 0.8
TRAIN_POINTS = 4000
TRAIN_SEED = 11
INVERSE_REGULARISATION = 0.01
ONNX_OPSET = 17
ONNX_TOLERANCE = 1e-5


@dataclass(frozen=True)
class Rankers:
    """Two logistic regressions on a feature matrix of shape [n, F].

    `watch` predicts whether a product will be watched. It is trained on all watched candidates, but
    only on a share of the others, so its output ranks products but is not a calibrated probability.
    `like` predicts whether a product will be liked if it is watched. It is trained on the watched
    candidates. `sample` holds some rows of the training data, float32[rows, F].
    """

    watch: Pipeline
    like: Pipeline
    sample: FloatArray


def train_rankers(data: MovieLens, past: Events, points: int = TRAIN_POINTS) -> Rankers:
    """Train both models on requests in the last part of `past`, at most `points` of them.

    The features are computed from the first part only, so they contain no outcome of a request.
    """
    first, rest = split_by_time(past, TRAIN_PAST_SHARE)
    training_points = sample_points(past, data.item_ids, len(past) - len(rest), points, TRAIN_SEED)
    samples = collect_samples(build_tables(data, first), training_points, TRAIN_SEED)
    liked = samples.ratings[samples.watched] >= LIKED_RATING
    return Rankers(
        watch=_fit(samples.features, samples.watched),
        like=_fit(samples.features[samples.watched], liked),
        sample=samples.features[:500],
    )


def export_onnx(model: Pipeline, output: str, sample: FloatArray) -> bytes:
    """Return a model as the bytes of an ONNX file, with the input `features`, float32[n, F].

    The output, named `output`, is the probability of the positive class, float32[n, 1].

    Raise `ValueError` if the predictions of the file for `sample` differ from those of `model` by
    more than `ONNX_TOLERANCE`.
    """
    converted = convert_sklearn(
        model,
        name=output,
        initial_types=[("features", FloatTensorType([None, len(COLUMNS)]))],
        options={id(model): {"zipmap": False}},
        target_opset=ONNX_OPSET,
    )
    graph = converted.graph
    probabilities = graph.output[1].name
    graph.initializer.append(numpy_helper.from_array(np.array([1]), "positive_class"))
    graph.node.append(
        helper.make_node("Gather", [probabilities, "positive_class"], [output], axis=1)
    )
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info(output, TensorProto.FLOAT, [None, 1]))
    onnx.checker.check_model(converted)
    payload: bytes = converted.SerializeToString()
    actual: Any = onnxruntime.InferenceSession(payload).run([output], {"features": sample})[0]
    difference = np.abs(actual[:, 0] - model.predict_proba(sample)[:, 1]).max()
    if difference > ONNX_TOLERANCE:
        raise ValueError(
            f"the ONNX file of '{output}' differs from scikit-learn by {difference}, the limit is "
            f"{ONNX_TOLERANCE}"
        )
    return payload


def _fit(features: FloatArray, labels: BoolArray) -> Pipeline:
    model = make_pipeline(
        StandardScaler(), LogisticRegression(C=INVERSE_REGULARISATION, max_iter=300)
    )
    return model.fit(features, labels)
