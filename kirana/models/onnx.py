"""One ONNX model as a function from named inputs to named outputs, with a value a row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime

from kirana.errors import ConfigurationError, InvalidInput, ModelFailed, Unknown
from kirana.models.runner import MATRIX, Scores


@dataclass(frozen=True, slots=True)
class Signature:
    """What a model takes and gives. `width` is None where the model leaves it open."""

    width: int | None
    outputs: tuple[str, ...]


class OnnxModel:
    """One thread, no spinning: replicas and their event loop share the cores.

    Raises `ConfigurationError` for a file that is missing, no ONNX, or of another shape.
    """

    def __init__(self, name: str, path: Path) -> None:
        self.name = name
        require_file(name, path)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime's errors have no common base
            raise ConfigurationError(
                f"model '{name}': {path} can't be loaded as an ONNX model: {error}",
                field="path",
            ) from None
        self.signature = self._read_signature()
        self._input = self._session.get_inputs()[0].name

    def _read_signature(self) -> Signature:
        inputs = self._session.get_inputs()
        if len(inputs) != 1 or inputs[0].type != "tensor(float)" or len(inputs[0].shape) != 2:
            found = ", ".join(f"{each.name} {each.type}{each.shape}" for each in inputs)
            raise ConfigurationError(
                f"model '{self.name}' must take one float32 matrix [rows, columns], not {found}",
                field="path",
            )
        rows, width = inputs[0].shape
        if isinstance(rows, int):
            raise ConfigurationError(
                f"model '{self.name}' takes {rows} rows and no other number: export it with an "
                "dynamic first dimension",
                field="path",
            )
        outputs = tuple(
            each.name
            for each in self._session.get_outputs()
            if each.type == "tensor(float)"
            and (len(each.shape) == 1 or (len(each.shape) == 2 and each.shape[1] == 1))
        )
        return Signature(width if isinstance(width, int) else None, outputs)

    def run(
        self,
        inputs: Mapping[str, npt.NDArray[np.float32]],
        outputs: Sequence[str],
        options: onnxruntime.RunOptions | None = None,
    ) -> dict[str, Scores]:
        """Run the model once; return the wanted outputs by name, each of the shape (rows,).

        Raises `ModelFailed` if the model fails on these inputs, or gives another number of rows.
        """
        matrix = self._matrix_of(inputs)
        for output in outputs:
            if output not in self.signature.outputs:
                raise Unknown("output", output, self.signature.outputs)
        try:
            found = self._session.run(list(outputs), {self._input: matrix}, options)
        except Exception as error:  # onnxruntime's errors have no common base
            reason = f"it can't score this matrix of {len(matrix)} rows: {error}"
            raise ModelFailed(self.name, reason) from None
        return {
            output: self._one_a_row(output, values, len(matrix))
            for output, values in zip(outputs, found, strict=True)
        }

    def _matrix_of(self, inputs: Mapping[str, npt.NDArray[np.float32]]) -> npt.NDArray[np.float32]:
        if set(inputs) not in ({MATRIX}, {self._input}):
            raise InvalidInput(
                f"model '{self.name}' takes one input, '{self._input}', not {sorted(inputs)}"
            )
        (matrix,) = inputs.values()
        if self.signature.width not in (None, matrix.shape[1]):
            raise InvalidInput(
                f"model '{self.name}' takes {self.signature.width} columns, not {matrix.shape[1]}"
            )
        return matrix

    def _one_a_row(self, output: str, values: Scores, rows: int) -> Scores:
        if values.size != rows or (values.ndim and len(values) != rows):
            raise ModelFailed(
                self.name,
                f"its output '{output}' has {len(values) if values.ndim else 1} rows "
                f"(shape {list(values.shape)}) for a matrix of {rows} rows",
                wrong_rows=True,
            )
        return values.reshape(-1)


def require_file(name: str, path: Path) -> None:
    """Raise `ConfigurationError` if the model `name` has no file at `path`."""
    try:
        there = path.is_file()
    except (OSError, ValueError):  # a name that is too long, or holds a NUL
        there = False
    if not there:
        shown = repr(str(path))[1:200]
        raise ConfigurationError(f"model '{name}': there is no file {shown}", field="path")
