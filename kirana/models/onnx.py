"""A loaded ONNX model, which takes a matrix and returns outputs with one value per row."""

from __future__ import annotations

import mmap
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
    """The input and the outputs of a model.

    `width` is the number of columns of the input, or None if the model does not fix it. `outputs`
    are the names of the float32 outputs with one value per row. Other outputs are left out.
    """

    width: int | None
    outputs: tuple[str, ...]


class OnnxModel:
    """A loaded model. A run uses one thread, because all replicas share the cores of the machine.

    Raise `ConfigurationError` if the file is missing or can't be loaded, or if the model does not
    take one float32 matrix with any number of rows. `has_control_flow` is whether the model has, or
    may have, loops or branches. The time of a run may then depend on the values of the input.
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
        except Exception as error:  # onnxruntime's errors have no common base class.
            raise ConfigurationError(
                f"model '{name}': {path} can't be loaded as an ONNX model: {error}",
                field="path",
            ) from None
        self.signature = self._read_signature()
        self.has_control_flow = _has_control_flow(path)
        self._input = self._session.get_inputs()[0].name

    def _read_signature(self) -> Signature:
        """Return the signature.

        Raise `ConfigurationError` unless the input is one float32 matrix with any number of rows.
        """
        inputs = self._session.get_inputs()
        if len(inputs) != 1 or inputs[0].type != "tensor(float)" or len(inputs[0].shape) != 2:
            shapes = ", ".join(f"{value.name} {value.type}{value.shape}" for value in inputs)
            raise ConfigurationError(
                f"model '{self.name}' must take one float32 matrix [rows, columns], not {shapes}",
                field="path",
            )
        rows, width = inputs[0].shape
        if isinstance(rows, int):
            raise ConfigurationError(
                f"model '{self.name}' takes exactly {rows} rows: export it with a dynamic first "
                "dimension",
                field="path",
            )
        outputs = tuple(
            output.name
            for output in self._session.get_outputs()
            if output.type == "tensor(float)"
            and (len(output.shape) == 1 or (len(output.shape) == 2 and output.shape[1] == 1))
        )
        return Signature(width if isinstance(width, int) else None, outputs)

    def run(
        self,
        inputs: Mapping[str, npt.NDArray[np.float32]],
        outputs: Sequence[str],
        options: onnxruntime.RunOptions | None = None,
    ) -> dict[str, Scores]:
        """Run the model once on the calling thread; return `outputs` by name, as `float32[rows]`.

        Raise `Unknown` for an unknown output, `InvalidInput` if the input has a wrong name or
        width, and `ModelFailed` if the model fails on the matrix or returns a wrong number of rows.
        """
        matrix = self._matrix_of(inputs)
        for output in outputs:
            if output not in self.signature.outputs:
                raise Unknown("output", output, self.signature.outputs)
        try:
            results = self._session.run(list(outputs), {self._input: matrix}, options)
        except Exception as error:  # onnxruntime's errors have no common base class.
            reason = f"it can't score this matrix of {len(matrix)} rows: {error}"
            raise ModelFailed(self.name, reason) from None
        return {
            output: self._one_per_row(output, values, len(matrix))
            for output, values in zip(outputs, results, strict=True)
        }

    def _matrix_of(self, inputs: Mapping[str, npt.NDArray[np.float32]]) -> npt.NDArray[np.float32]:
        """Return the only input. Raise `InvalidInput` if its name or its width is wrong."""
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

    def _one_per_row(self, output: str, values: Scores, rows: int) -> Scores:
        """Return an output as `float32[rows]`.

        Raise `ModelFailed` unless it has one value for each of `rows` rows.
        """
        if values.size != rows or (values.ndim and len(values) != rows):
            raise ModelFailed(
                self.name,
                f"its output '{output}' must have one value per row, but has the shape "
                f"{list(values.shape)} for a matrix of {rows} rows",
                wrong_rows=True,
            )
        return values.reshape(-1)


_CONTROL_FLOW = ("Loop", "Scan", "If")


def _has_control_flow(path: Path) -> bool:
    """Return whether the file of a model contains an operator of `_CONTROL_FLOW`.

    An operator is recognized by its encoded field: `op_type` has the number 4 in ONNX's
    `NodeProto`. Other bytes may look the same, so the result may be True by mistake.
    """
    fields = [bytes((4 << 3 | 2, len(name))) + name.encode() for name in _CONTROL_FLOW]
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return any(content.find(field) >= 0 for field in fields)


def run_options() -> onnxruntime.RunOptions:
    """Return options of a run that another thread can stop: set `terminate` on them.

    ONNX Runtime logs no errors of the run, because `OnnxModel.run` raises them.
    """
    options = onnxruntime.RunOptions()
    options.log_severity_level = 4
    return options


def warm_up_options() -> onnxruntime.RunOptions:
    """Return options of a run after which the model gives its working memory back.

    Otherwise a model would keep the memory of its largest run, even if requests are smaller.
    """
    options = run_options()
    options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    return options


def require_file(name: str, path: Path) -> None:
    """Raise `ConfigurationError` if the model `name` has no file at `path`."""
    try:
        exists = path.is_file()
    except (OSError, ValueError):  # For example, the path contains a NUL.
        exists = False
    if not exists:
        shown = repr(str(path)[:200])
        raise ConfigurationError(f"model '{name}': there is no file {shown}", field="path")
