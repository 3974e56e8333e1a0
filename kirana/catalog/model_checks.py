"""Check models before they go live: their signatures, and a trial on a few rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from kirana.catalog.documents import Document
from kirana.catalog.model_store import ModelStore
from kirana.catalog.objects import ModelObject
from kirana.errors import KiranaError, Problem, did_you_mean
from kirana.inferflow.plan import ModelCall, Plan
from kirana.models.onnx import Signature


class ModelChecks:
    """Collects `problems`, with which a catalog can't go live, and `warnings`.

    Without `store` the files of models are not looked into.
    """

    def __init__(
        self,
        store: ModelStore | None,
        models: Sequence[tuple[ModelObject, Document]],
    ) -> None:
        self.problems: list[Problem] = []
        self.warnings: list[Problem] = []
        self._store = store
        self._models = models
        self._signatures = self._read_signatures()
        self._calls: dict[str, list[tuple[Plan, ModelCall, Document, str]]] = {}

    def _read_signatures(self) -> dict[str, Signature]:
        signatures: dict[str, Signature] = {}
        for model, document in self._models:
            # one without a digest was refused before
            if self._store is not None and model.sha256 is not None:
                try:
                    signatures[model.name] = self._store.signature(model)
                except KiranaError as error:
                    problem = document.problem(error.message, error.field or "path")
                    self.problems.append(problem)
        return signatures

    def take_plan(self, plan: Plan, document: Document) -> None:
        """Check the calls of an inferflow against the signatures of the models."""
        for at, call in enumerate(plan.calls):
            signature = self._signatures.get(call.model)
            if signature is None:
                continue
            path = f"models[{at}]"
            fits = signature.width in (None, len(plan.columns))
            given = call.output in signature.outputs
            if not fits:
                message = (
                    f"model '{call.model}' takes {signature.width} columns, the features "
                    f"and inputs make {len(plan.columns)}"
                )
                self.problems.append(document.problem(message, f"{path}.model"))
            if not given:
                hint = did_you_mean(call.output, signature.outputs)
                message = f"model '{call.model}' has no output '{call.output}': {hint}"
                self.problems.append(document.problem(message, f"{path}.output"))
            if fits and given:
                self._calls.setdefault(call.model, []).append((plan, call, document, path))

    def try_out(self) -> None:
        """Run each model where an inferflow calls it, on the defaults of the features."""
        for model, document in self._models:
            signature = self._signatures.get(model.name)
            if signature is None:
                continue
            for plan, call, where, path in self._calls.get(model.name, ()):
                self._try_out(model, plan.default_row, call.output, where, path)
            if model.name not in self._calls and signature.width:
                # no inferflow says what its columns are
                zeros = np.zeros(signature.width, dtype=np.float32)
                for output in signature.outputs:
                    self._try_out(model, zeros, output, document, "path")

    def _try_out(
        self,
        model: ModelObject,
        row: npt.NDArray[np.float32],
        output: str,
        document: Document,
        path: str,
    ) -> None:
        assert self._store is not None
        for finding in self._store.try_out(model, row, [output]):
            found = self.problems if finding.wrong else self.warnings
            found.append(document.problem(finding.message, path))
