"""Trials of models before a publish. They check that outputs have one value per row."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kirana.errors import KiranaError, ModelFailed
from kirana.models.onnx import OnnxModel, run_options
from kirana.models.runner import MATRIX

ROWS = (1, 2, 3)
"""The numbers of rows that a model is tried on."""

LIMIT_S = 5.0
"""Seconds after which a trial is given up."""


@dataclass(frozen=True, slots=True)
class TrialResult:
    """A problem that a trial found.

    If it is `wrong`, the model must not be published. If it is `late`, the trial took too long and
    was given up, so the model was not checked.
    """

    message: str
    wrong: bool = False
    late: bool = False


class _Trial(threading.Thread):
    """A trial in a daemon thread.

    An operator of a model can't be interrupted. A daemon thread does not keep the process alive
    until the operator ends.
    """

    def __init__(
        self, model: OnnxModel, row: npt.NDArray[np.float32], outputs: Sequence[str]
    ) -> None:
        super().__init__(daemon=True)
        self._model = model
        self._row = row
        self._outputs = outputs
        self._options = run_options()
        self.findings: list[TrialResult] = []

    def run(self) -> None:
        """Try each output on each number of rows; keep one problem per output."""
        for output in self._outputs:
            errors = [self._error_of(output, rows) for rows in ROWS]
            # If one matrix fails and another gives a wrong number of rows, report the latter.
            problems = [error for error in errors if error and error.wrong] or list(
                filter(None, errors)
            )
            self.findings += problems[:1]

    def _error_of(self, output: str, rows: int) -> TrialResult | None:
        """Return what went wrong with `output` on a matrix of `rows` rows, or None."""
        try:
            self._model.run({MATRIX: np.tile(self._row, (rows, 1))}, [output], self._options)
        except KiranaError as error:
            wrong = isinstance(error, ModelFailed) and error.wrong_rows
            return TrialResult(error.message, wrong=wrong)
        return None

    def stop(self) -> None:
        """Make the trial end before the next operator of the model."""
        self._options.terminate = True


def try_out(
    model: OnnxModel,
    row: npt.NDArray[np.float32],
    outputs: Sequence[str],
    limit_s: float = LIMIT_S,
) -> list[TrialResult]:
    """Run a model on 1, 2 and 3 copies of `row`, `float32[columns]`; return what went wrong.

    Block until the trial is done, but at most `limit_s` seconds. After that, return one result that
    is `late`.
    """
    trial = _Trial(model, row, outputs)
    trial.start()
    trial.join(limit_s)
    if not trial.is_alive():
        return trial.findings
    trial.stop()
    message = (
        f"model '{model.name}' did not finish a trial on 1 to {max(ROWS)} rows in {limit_s:g} s, "
        "so Kirana did not check that it returns one value per row"
    )
    return [TrialResult(message, late=True)]
