"""`OnnxModel`: which ONNX files are accepted, and the scores that they return."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from kirana.errors import ConfigurationError, InvalidInput, ModelFailed, Unknown
from kirana.models.onnx import OnnxModel
from kirana.models.runner import MATRIX
from tests.support import write_linear_model

Shape = Sequence[int | str | None]
FLOAT, DOUBLE, INT64 = TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.INT64


def write(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[tuple[str, int, Shape]],
    outputs: Sequence[tuple[str, int, Shape]],
    weights: dict[str, np.ndarray] | None = None,
) -> Path:
    """Write a model; inputs and outputs are tuples of name, ONNX type and shape."""
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info(*info) for info in inputs],
        [helper.make_tensor_value_info(*info) for info in outputs],
        [numpy_helper.from_array(value, name) for name, value in (weights or {}).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())
    return path


def ones(rows: int, columns: int) -> np.ndarray:
    return np.ones((rows, columns), dtype=np.float32)


def scored(model: OnnxModel, matrix: np.ndarray, output: str) -> np.ndarray:
    return model.run({MATRIX: matrix}, [output])[output]


def linear(path: Path) -> Path:
    write_linear_model(path, [1.0, 2.0, 4.0], "p")
    return path


def two_outputs(path: Path) -> Path:
    """Write a model with two usable outputs and two others.

    `column` has the shape [n, 1], and `flat` the shape [n]. `wide` has the shape [n, 2], and
    `count` has integers.
    """
    return write(
        path,
        [
            helper.make_node("MatMul", ["x", "w"], ["column"]),
            helper.make_node("ReduceSum", ["x", "one"], ["flat"], keepdims=0),
            helper.make_node("MatMul", ["x", "w2"], ["wide"]),
            helper.make_node("Cast", ["column"], ["count"], to=INT64),
        ],
        [("x", FLOAT, ["n", 3])],
        [
            ("column", FLOAT, ["n", 1]),
            ("flat", FLOAT, ["n"]),
            ("wide", FLOAT, ["n", 2]),
            ("count", INT64, ["n", 1]),
        ],
        {
            "w": np.array([[1], [2], [4]], dtype=np.float32),
            "w2": ones(3, 2),
            "one": np.array([1], dtype=np.int64),
        },
    )


def test_all_requested_outputs_come_from_one_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = OnnxModel("m", two_outputs(tmp_path / "m.onnx"))
    session, runs = model._session, []

    class Counted:
        def run(self, *arguments: object) -> object:
            runs.append(arguments[0])
            return session.run(*arguments)

    monkeypatch.setattr(model, "_session", Counted())
    outputs = model.run({MATRIX: ones(2, 3)}, ["flat", "column"])
    assert {name: values.tolist() for name, values in outputs.items()} == {
        "flat": [3, 3],
        "column": [7, 7],
    }
    assert runs == [["flat", "column"]]


def test_the_input_may_be_given_by_its_own_name(tmp_path: Path) -> None:
    model = OnnxModel("m", two_outputs(tmp_path / "m.onnx"))
    assert model.run({"x": ones(1, 3)}, ["flat"])["flat"].tolist() == [3]


@pytest.mark.parametrize("names", [[], ["y"], ["x", "y"], ["x", MATRIX]])
def test_inputs_with_other_names_are_refused(tmp_path: Path, names: list[str]) -> None:
    model = OnnxModel("m", two_outputs(tmp_path / "m.onnx"))
    with pytest.raises(InvalidInput, match="takes one input, 'x'"):
        model.run({name: ones(1, 3) for name in names}, ["flat"])


def test_a_signature_has_the_width_and_the_outputs(tmp_path: Path) -> None:
    signature = OnnxModel("m", linear(tmp_path / "m.onnx")).signature
    assert (signature.width, signature.outputs) == (3, ("p",))


def test_a_model_scores_each_row(tmp_path: Path) -> None:
    model = OnnxModel("m", linear(tmp_path / "m.onnx"))
    matrix = np.array([[1, 0, 0], [0, 1, 0], [1, 1, 1]], dtype=np.float32)
    scores = scored(model, matrix, "p")
    assert scores.tolist() == [1, 2, 7]
    assert scores.dtype == np.float32


def test_a_matrix_that_is_not_contiguous_is_scored_correctly(tmp_path: Path) -> None:
    model = OnnxModel("m", linear(tmp_path / "m.onnx"))
    matrix = np.arange(12, dtype=np.float32).reshape(4, 3)
    assert scored(model, matrix[::2], "p").tolist() == [10, 52]
    assert scored(model, np.asfortranarray(matrix), "p").tolist() == [10, 31, 52, 73]


def test_outputs_with_one_value_per_row_are_returned_flat(tmp_path: Path) -> None:
    model = OnnxModel("m", two_outputs(tmp_path / "m.onnx"))
    matrix = np.array([[1, 2, 3], [0, 0, 1]], dtype=np.float32)
    assert scored(model, matrix, "column").tolist() == [17, 4]
    assert scored(model, matrix, "flat").tolist() == [6, 1]
    assert scored(model, matrix[:1], "column").shape == (1,)
    assert scored(model, matrix[:0], "flat").shape == (0,)


def test_outputs_of_other_shapes_or_types_are_unknown(tmp_path: Path) -> None:
    model = OnnxModel("m", two_outputs(tmp_path / "m.onnx"))
    assert model.signature.outputs == ("column", "flat")
    for output in ("wide", "count", "columm"):
        with pytest.raises(Unknown, match="unknown output") as caught:
            scored(model, ones(2, 3), output)
        assert caught.value.code == "unknown_output"


@pytest.mark.parametrize("width", [0, 2, 4])
def test_a_matrix_of_another_width_is_refused(tmp_path: Path, width: int) -> None:
    model = OnnxModel("m", linear(tmp_path / "m.onnx"))
    with pytest.raises(InvalidInput, match=f"takes 3 columns, not {width}"):
        scored(model, ones(2, width), "p")


def test_a_model_without_a_fixed_width_accepts_any_width(tmp_path: Path) -> None:
    path = write(
        tmp_path / "m.onnx",
        [helper.make_node("ReduceSum", ["x", "one"], ["p"], keepdims=0)],
        [("x", FLOAT, ["n", "width"])],
        [("p", FLOAT, ["n"])],
        {"one": np.array([1], dtype=np.int64)},
    )
    model = OnnxModel("m", path)
    assert model.signature.width is None
    assert scored(model, ones(2, 5), "p").tolist() == [5, 5]
    assert scored(model, ones(1, 2), "p").tolist() == [2]


def test_a_missing_file_is_refused_with_the_name_of_the_model(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigurationError, match=r"model 'm': there is no file '.*m\.onnx'$"
    ) as caught:
        OnnxModel("m", tmp_path / "m.onnx")
    assert caught.value.field == "path"


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="there is no file"):
        OnnxModel("m", tmp_path)


@pytest.mark.parametrize("cut", ["empty", "text", "half"])
def test_a_file_that_is_not_onnx_is_refused(tmp_path: Path, cut: str) -> None:
    path = linear(tmp_path / "m.onnx")
    whole = path.read_bytes()
    path.write_bytes({"empty": b"", "text": b"not a model", "half": whole[: len(whole) // 2]}[cut])
    with pytest.raises(ConfigurationError, match=r"model 'm'") as caught:
        OnnxModel("m", path)
    assert caught.value.field == "path"


@pytest.mark.parametrize(
    ("inputs", "actual"),
    [
        ([("x", DOUBLE, ["n", 3])], r"x tensor\(double\)"),
        ([("x", INT64, ["n", 3])], r"x tensor\(int64\)"),
        ([("x", FLOAT, ["n"])], r"x tensor\(float\)"),
        ([("x", FLOAT, ["n", 3, 1])], r"x tensor\(float\)"),
        ([("x", FLOAT, ["n", 3]), ("y", FLOAT, ["n", 3])], r"x tensor\(float\).*, y tensor"),
    ],
    ids=["double", "integers", "a vector", "a cube", "two inputs"],
)
def test_a_model_that_does_not_take_one_float32_matrix_is_refused(
    tmp_path: Path, inputs: list[tuple[str, int, Shape]], actual: str
) -> None:
    name, dtype, shape = inputs[0]
    nodes = [helper.make_node("Identity", [name], ["p"])]
    path = write(tmp_path / "m.onnx", nodes, inputs, [("p", dtype, shape)])
    with pytest.raises(ConfigurationError, match=f"must take one float32 matrix.*not {actual}"):
        OnnxModel("m", path)


def test_a_model_for_a_fixed_number_of_rows_is_refused(tmp_path: Path) -> None:
    """It would fail on any request with another number of rows."""
    path = write(
        tmp_path / "m.onnx",
        [helper.make_node("MatMul", ["x", "w"], ["p"])],
        [("x", FLOAT, [1, 3])],
        [("p", FLOAT, [1, 1])],
        {"w": ones(3, 1)},
    )
    with pytest.raises(ConfigurationError, match="rows"):
        OnnxModel("m", path)


def test_a_width_that_a_model_cannot_use_is_reported_with_the_name_of_the_model(
    tmp_path: Path,
) -> None:
    path = write(
        tmp_path / "m.onnx",
        [helper.make_node("MatMul", ["x", "w"], ["p"])],
        [("x", FLOAT, ["n", "width"])],
        [("p", FLOAT, ["n", 1])],
        {"w": ones(3, 1)},
    )
    model = OnnxModel("m", path)
    assert scored(model, ones(2, 3), "p").tolist() == [3, 3]
    with pytest.raises(ModelFailed, match="model 'm'"):
        scored(model, ones(2, 4), "p")


WRONG_NUMBERS_OF_ROWS = {
    "one row, [1, 1]": (helper.make_node("ReduceSum", ["x"], ["p"]), 1),
    "two for each row": (helper.make_node("Reshape", ["x", "one column"], ["p"]), 6),
}


@pytest.mark.parametrize(
    ("node", "rows"), WRONG_NUMBERS_OF_ROWS.values(), ids=WRONG_NUMBERS_OF_ROWS
)
def test_an_output_with_a_wrong_number_of_rows_is_never_returned(
    tmp_path: Path, node: onnx.NodeProto, rows: int
) -> None:
    """ONNX Runtime only warns about an output that differs from its declared shape [n, 1]."""
    graph = helper.make_graph(
        [node],
        "liar",
        [helper.make_tensor_value_info("x", FLOAT, ["n", 2])],
        [helper.make_tensor_value_info("p", FLOAT, ["n", 1])],
        [numpy_helper.from_array(np.array([-1, 1], dtype=np.int64), "one column")],
    )
    onnx_model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    (tmp_path / "m.onnx").write_bytes(onnx_model.SerializeToString())
    model = OnnxModel("m", tmp_path / "m.onnx")
    with pytest.raises(ModelFailed) as caught:
        scored(model, ones(3, 2), "p")
    assert caught.value.model == "m"
    assert f"its output 'p' must have one value per row, but has the shape [{rows}" in str(
        caught.value
    )
    assert "for a matrix of 3 rows" in caught.value.message


def gathering(path: Path) -> Path:
    """Write a model that uses the value of each row as an index into a table of three."""
    return write(
        path,
        [
            helper.make_node("Cast", ["x"], ["at"], to=INT64),
            helper.make_node("Gather", ["table", "at"], ["p"]),
        ],
        [("x", FLOAT, ["n", 1])],
        [("p", FLOAT, ["n", 1])],
        {"table": np.array([5, 6, 7], dtype=np.float32)},
    )


def test_an_error_while_scoring_rows_is_reported_with_the_model(tmp_path: Path) -> None:
    model = OnnxModel("m", gathering(tmp_path / "m.onnx"))
    assert scored(model, np.array([[0], [2]], dtype=np.float32), "p").tolist() == [5, 7]
    with pytest.raises(ModelFailed, match="model 'm': it can't score this matrix of 1 rows"):
        scored(model, np.array([[3]], dtype=np.float32), "p")
