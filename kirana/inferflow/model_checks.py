"""Check models before they go live: their signatures, and a trial on a few rows."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from kirana.catalog.checks import Finding, LookInto
from kirana.catalog.items import Key
from kirana.catalog.objects import ModelObject
from kirana.catalog.snapshot import Catalog
from kirana.errors import KiranaError, did_you_mean
from kirana.inferflow.plan import ModelCall, Plan
from kirana.models.onnx import Signature
from kirana.models.trial import TrialResult


class Models(Protocol):
    """The models behind a catalog, as they are looked into."""

    def signature(self, model: ModelObject) -> Signature:
        """Return what a model takes and gives. Raises `ConfigurationError` if it can't be used."""

    def try_out(
        self, model: ModelObject, row: npt.NDArray[np.float32], outputs: Sequence[str]
    ) -> list[TrialResult]:
        """Run a model on a few times `row`, of shape (columns,), within seconds."""


def looking_into(models: Models) -> LookInto:
    """Return what checks the calls of inferflows against these models, and tries them out."""
    return lambda catalog, keys: _ModelChecks(models, catalog, keys).run()


class _ModelChecks:
    """Checks the models and inferflows among `keys`."""

    def __init__(self, models: Models, catalog: Catalog, keys: Collection[Key]) -> None:
        self._models = models
        self._catalog = catalog
        self._inferflows = [name for kind, name in keys if kind == "inferflow"]
        self._named = [name for kind, name in keys if kind == "model"]
        self._findings: list[Finding] = []
        self._signatures: dict[str, Signature | None] = {}
        self._calls: list[tuple[str, int, Plan, ModelCall]] = []

    def run(self) -> list[Finding]:
        for name in self._named:
            self._signature(name)
        for name in self._inferflows:
            self._check_calls(name, self._catalog.compiled("inferflow", name))
        if not any(each.wrong for each in self._findings):
            self._try_out()
        return self._findings

    def _signature(self, name: str) -> Signature | None:
        if name not in self._signatures:
            self._signatures[name] = None
            try:
                self._signatures[name] = self._models.signature(self._catalog.models[name])
            except KiranaError as error:
                self._refuse(("model", name), error.message, error.field or "path")
        return self._signatures[name]

    def _refuse(self, key: Key, message: str, path: str) -> None:
        self._findings.append(Finding(key, message, path, wrong=True))

    def _check_calls(self, name: str, plan: Plan) -> None:
        for at, call in enumerate(plan.calls):
            signature = self._signature(call.model)
            if signature is None:
                continue
            key, path = ("inferflow", name), f"models[{at}]"
            fits = signature.width in (None, len(plan.columns))
            given = call.output in signature.outputs
            if not fits:
                message = (
                    f"model '{call.model}' takes {signature.width} columns, the features "
                    f"and inputs make {len(plan.columns)}"
                )
                self._refuse(key, message, f"{path}.model")
            if not given:
                hint = did_you_mean(call.output, signature.outputs)
                message = f"model '{call.model}' has no output '{call.output}': {hint}"
                self._refuse(key, message, f"{path}.output")
            if fits and given:
                self._calls.append((name, at, plan, call))

    def _try_out(self) -> None:
        """Run each model where an inferflow calls it, on the defaults of the features."""
        called = {call.model for *_, call in self._calls}
        for name, at, plan, call in self._calls:
            key = ("inferflow", name)
            self._try(key, call.model, plan.default_row, call.output, f"models[{at}]")
        for name in self._named:
            signature = self._signatures[name]
            if name not in called and signature is not None and signature.width:
                # no inferflow says what its columns are
                zeros = np.zeros(signature.width, dtype=np.float32)
                for output in signature.outputs:
                    self._try(("model", name), name, zeros, output, "path")

    def _try(
        self, key: Key, model: str, row: npt.NDArray[np.float32], output: str, path: str
    ) -> None:
        for found in self._models.try_out(self._catalog.models[model], row, [output]):
            self._findings.append(Finding(key, found.message, path, found.wrong))
