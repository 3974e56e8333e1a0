"""Checks of models before a revision is published: their signatures, and a trial on a few rows."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from kirana.catalog.checks import Finding, ModelCheck
from kirana.catalog.items import Key
from kirana.catalog.objects import ModelObject
from kirana.catalog.snapshot import Catalog
from kirana.errors import KiranaError, did_you_mean
from kirana.inferflow.plan import ModelCall, Plan
from kirana.models.onnx import Signature
from kirana.models.trial import TrialResult


class Models(Protocol):
    """The model files, as far as the checks use them."""

    def signature(self, model: ModelObject) -> Signature:
        """Return the signature of a model. Raise `ConfigurationError` if it can't be loaded."""

    def try_out(
        self, model: ModelObject, row: npt.NDArray[np.float32], outputs: Sequence[str]
    ) -> list[TrialResult]:
        """Run a model on a few copies of `row`, `float32[columns]`; return what went wrong.

        A trial that takes too long is given up.
        """


def model_checker(models: Models) -> ModelCheck:
    """Return a function that checks models, and the calls of models in inferflows."""
    return lambda catalog, keys: _ModelChecks(models, catalog, keys).run()


class _ModelChecks:
    """The checks of the models and inferflows among `keys`."""

    def __init__(self, models: Models, catalog: Catalog, keys: Collection[Key]) -> None:
        self._models = models
        self._catalog = catalog
        self._inferflow_names = [name for kind, name in keys if kind == "inferflow"]
        self._model_names = [name for kind, name in keys if kind == "model"]
        self._findings: list[Finding] = []
        self._signatures: dict[str, Signature | None] = {}
        self._calls: list[tuple[str, int, Plan, ModelCall]] = []
        """The calls that fit their models: inferflow, position in its `models`, plan and call."""

    def run(self) -> list[Finding]:
        """Return all findings.

        The models are tried out only if all signatures can be read and all calls fit them.
        """
        for name in self._model_names:
            self._signature(name)
        for name in self._inferflow_names:
            self._check_calls(name, self._catalog.compiled("inferflow", name))
        if not any(finding.wrong for finding in self._findings):
            self._try_out()
        return self._findings

    def _signature(self, name: str) -> Signature | None:
        """Return the signature of a model, which is read once, or None if it can't be loaded."""
        if name not in self._signatures:
            self._signatures[name] = None
            try:
                self._signatures[name] = self._models.signature(self._catalog.models[name])
            except KiranaError as error:
                self._add_problem(("model", name), error.message, error.field or "path")
        return self._signatures[name]

    def _add_problem(self, key: Key, message: str, path: str) -> None:
        """Add a finding that prevents a publish."""
        self._findings.append(Finding(key, message, path, wrong=True))

    def _check_calls(self, name: str, plan: Plan) -> None:
        """Check the calls of an inferflow: the width of its matrix, and the names of outputs."""
        for position, call in enumerate(plan.calls):
            signature = self._signature(call.model)
            if signature is None:
                continue
            key, path = ("inferflow", name), f"models[{position}]"
            width_fits = signature.width in (None, len(plan.columns))
            has_output = call.output in signature.outputs
            if not width_fits:
                message = (
                    f"model '{call.model}' takes {signature.width} columns, but the features "
                    f"make {len(plan.columns)}"
                )
                self._add_problem(key, message, f"{path}.model")
            if not has_output:
                hint = did_you_mean(call.output, signature.outputs)
                message = f"model '{call.model}' has no output '{call.output}': {hint}"
                self._add_problem(key, message, f"{path}.output")
            if width_fits and has_output:
                self._calls.append((name, position, plan, call))

    def _try_out(self) -> None:
        """Try out the models.

        A model is tried for each inferflow that calls it, on a row of the inferflow's defaults. A
        model that none of these inferflows calls is tried on zeros, if it has a fixed width.
        """
        called = {call.model for *_, call in self._calls}
        for name, position, plan, call in self._calls:
            key = ("inferflow", name)
            self._try(key, call.model, plan.default_row, call.output, f"models[{position}]")
        for name in self._model_names:
            signature = self._signatures[name]
            if name not in called and signature is not None and signature.width:
                # Without an inferflow, the defaults of the columns are not known.
                zeros = np.zeros(signature.width, dtype=np.float32)
                for output in signature.outputs:
                    self._try(("model", name), name, zeros, output, "path")

    def _try(
        self, key: Key, model: str, row: npt.NDArray[np.float32], output: str, path: str
    ) -> None:
        """Try one output of a model on copies of `row`; add what went wrong to the findings."""
        for result in self._models.try_out(self._catalog.models[model], row, [output]):
            self._findings.append(Finding(key, result.message, path, result.wrong))
