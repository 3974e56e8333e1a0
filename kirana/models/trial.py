"""Try a model out before it goes live: does it give one value for each row?"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnxruntime

from kirana.errors import KiranaError, ModelFailed
from kirana.models.onnx import OnnxModel
from kirana.models.runner import MATRIX

ROWS = (1, 2, 3)
LIMIT_S = 5.0


@dataclass(frozen=True, slots=True)
class TrialResult:
    """One result of a trial: a `wrong` model must not go live, a `late` one was not tried."""

    message: str
    wrong: bool = False
    late: bool = False


class _Trial(threading.Thread):
    """Runs in a daemon thread: an operator can't be stopped, and must not keep a process alive."""

    def __init__(
        self, model: OnnxModel, row: npt.NDArray[np.float32], outputs: Sequence[str]
    ) -> None:
        super().__init__(daemon=True)
        self._model = model
        self._row = row
        self._outputs = outputs
        self._options = onnxruntime.RunOptions()
        self._options.log_severity_level = 4  # what it finds is told by its findings
        self.findings: list[TrialResult] = []

    def run(self) -> None:
        for output in self._outputs:
            errors = [self._error_of(output, rows) for rows in ROWS]
            # an error on one row must not hide that three rows give one value
            found = [each for each in errors if each and each.wrong] or list(filter(None, errors))
            self.findings += found[:1]

    def _error_of(self, output: str, rows: int) -> TrialResult | None:
        try:
            self._model.run({MATRIX: np.tile(self._row, (rows, 1))}, [output], self._options)
        except KiranaError as error:
            wrong = isinstance(error, ModelFailed) and error.wrong_rows
            return TrialResult(error.message, wrong=wrong)
        return None

    def stop(self) -> None:
        """Have the run end at its next operator."""
        self._options.terminate = True


def try_out(
    model: OnnxModel,
    row: npt.NDArray[np.float32],
    outputs: Sequence[str],
    limit_s: float = LIMIT_S,
) -> list[TrialResult]:
    """Run a model on 1, 2 and 3 times `row`, of shape (columns,), for `limit_s` at most."""
    trial = _Trial(model, row, outputs)
    trial.start()
    trial.join(limit_s)
    if not trial.is_alive():
        return trial.findings
    trial.stop()
    message = (
        f"model '{model.name}' took more than {limit_s:g} s for at most {max(ROWS)} rows: whether "
        "it gives a value for each row was not checked"
    )
    return [TrialResult(message, late=True)]
