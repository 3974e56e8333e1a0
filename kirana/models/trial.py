"""A model tried out before it goes live: whether it gives a value for each row that it is given."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnxruntime

from kirana.errors import KiranaError, ModelFailed
from kirana.models.onnx import OnnxModel

ROWS = (1, 2, 3)
LIMIT_S = 5.0


@dataclass(frozen=True, slots=True)
class Finding:
    """What a trial has shown. `wrong` is for a model that must not go live."""

    message: str
    wrong: bool


class _Trial(threading.Thread):
    """A thread of its own: one operator can't be stopped, and must not keep a process alive."""

    def __init__(
        self, model: OnnxModel, row: npt.NDArray[np.float32], outputs: Sequence[str]
    ) -> None:
        super().__init__(daemon=True)
        self._model = model
        self._row = row
        self._outputs = outputs
        self._options = onnxruntime.RunOptions()
        self._options.log_severity_level = 4  # what it finds is told by its findings
        self.findings: list[Finding] = []

    def run(self) -> None:
        for output in self._outputs:
            for rows in ROWS:
                matrix = np.tile(self._row, (rows, 1))
                try:
                    self._model.run(matrix, output, self._options)
                except ModelFailed as error:
                    self.findings.append(Finding(error.message, error.wrong_rows))
                    break
                except KiranaError as error:
                    self.findings.append(Finding(error.message, False))
                    break

    def stop(self) -> None:
        """Have the run end at its next operator."""
        self._options.terminate = True


def try_out(
    model: OnnxModel,
    row: npt.NDArray[np.float32],
    outputs: Sequence[str],
    limit_s: float = LIMIT_S,
) -> list[Finding]:
    """Run a model on 1, 2 and 3 times `row`, of shape (columns,), for `limit_s` at most."""
    trial = _Trial(model, row, outputs)
    trial.start()
    trial.join(limit_s)
    if not trial.is_alive():
        return trial.findings
    trial.stop()
    late = f"model '{model.name}' took more than {limit_s:g} s for {max(ROWS)} rows at most"
    return [Finding(f"{late}: how many rows it gives was not seen", False)]
