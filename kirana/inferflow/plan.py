"""An inferflow, checked and compiled: which entities are read in which order, and where to.

Entities whose keys are in the request are read first; those whose keys are resolved through
features of the first are read next, and so on. Nothing here reads or computes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from kirana.catalog.objects import InferflowObject
from kirana.catalog.snapshot import Catalog
from kirana.errors import CatalogError, InvalidInput, KiranaError, Problem, did_you_mean
from kirana.expressions import Expression, Kind
from kirana.schema import NUMERIC, RESERVED_ENTITY, Entity

INPUT = RESERVED_ENTITY
"""`input.<name>` among the features is a column that comes with the request."""

ROW_ID_DTYPES = ("string", *(name for name in NUMERIC if not name.startswith("float")))


@dataclass(frozen=True, slots=True)
class EntityRead:
    """What is read of one entity: by which ids, and where each feature's columns go."""

    entity: Entity
    ids: tuple[str, ...]
    matrix: tuple[str, ...]
    positions: npt.NDArray[np.intp]
    side_by_side: slice | None
    """The positions as a slice, where they are one run of columns."""
    resolves: tuple[tuple[str, str], ...]
    """Pairs of a resolved id and the `group.feature` that holds it."""


@dataclass(frozen=True, slots=True)
class ModelCall:
    model: str
    output: str


@dataclass(frozen=True)
class Plan:
    name: str
    context: dict[str, Entity]
    """The ids of a request, each with the entity that it names."""
    rows: str
    stages: tuple[tuple[EntityRead, ...], ...]
    inputs: dict[str, float]
    input_positions: dict[str, int]
    columns: tuple[str, ...]
    calls: tuple[ModelCall, ...]
    score: Expression
    default_row: npt.NDArray[np.float32]
    """The matrix of a row of which nothing is known: the default of each column."""

    @cached_property
    def outputs_of(self) -> dict[str, tuple[str, ...]]:
        """The outputs that are used of each model, which runs once for all of them."""
        found: dict[str, tuple[str, ...]] = {}
        for call in self.calls:
            found[call.model] = (*found.get(call.model, ()), call.output)
        return found


def compile_inferflow(inferflow: InferflowObject, catalog: Catalog) -> Plan:
    """Raises `CatalogError` with a `Problem` for each thing that does not fit."""
    return _Compiler(inferflow, catalog).compile()


class _Compiler:
    def __init__(self, inferflow: InferflowObject, catalog: Catalog) -> None:
        self.inferflow = inferflow
        self.catalog = catalog
        self.problems: list[Problem] = []
        self.stage_of: dict[str, int] = {}
        self.reads: dict[str, tuple[int, Entity, tuple[str, ...]]] = {}

    def refuse(self, path: str, message: str) -> None:
        self.problems.append(Problem(message, path=path))

    def compile(self) -> Plan:
        inferflow = self.inferflow
        self._check_context()
        self._order_resolved()
        matrix, columns, input_positions, default_row = self._lay_out_columns()
        self._check_models()
        score = self._compile_score(input_positions)
        if self.problems or score is None:
            raise CatalogError(self.problems)
        return Plan(
            name=inferflow.name,
            context={n: self.catalog.entities[e] for n, e in inferflow.context.items()},
            rows=inferflow.rows,
            stages=self._stages(matrix),
            inputs={each.name: float(each.default) for each in inferflow.inputs},
            input_positions=input_positions,
            columns=tuple(columns),
            calls=tuple(ModelCall(each.model, each.output) for each in inferflow.models),
            score=score,
            default_row=default_row,
        )

    def _check_context(self) -> None:
        inferflow = self.inferflow
        for name, entity in inferflow.context.items():
            if entity not in self.catalog.entities:
                hint = did_you_mean(entity, self.catalog.entities)
                self.refuse(f"context.{name}", f"unknown entity '{entity}': {hint}")
            first = next(each for each, of in inferflow.context.items() if of == entity)
            if first != name:
                message = (
                    f"'{entity}' is named by '{first}' already: which one would a feature mean?"
                )
                self.refuse(f"context.{name}", message)
            self.stage_of[name] = 0
        if inferflow.rows not in inferflow.context:
            hint = did_you_mean(inferflow.rows, inferflow.context)
            self.refuse("rows", f"'{inferflow.rows}' is not an id of the context: {hint}")

    def _order_resolved(self) -> None:
        """Resolve what can be, until nothing more can; the rest hangs in a cycle or in the air."""
        waiting = dict(self.inferflow.resolve)
        for name, source in list(waiting.items()):
            try:
                _, feature = self.catalog.feature(source)
            except KiranaError as error:
                self.refuse(f"resolve.{name}", error.message)
                del waiting[name]
                self.stage_of[name] = 0
                continue
            if name in self.inferflow.context:
                self.refuse(f"resolve.{name}", f"'{name}' is an id of the context already")
                del waiting[name]
            elif feature.shape or feature.dtype not in ROW_ID_DTYPES:
                kind = f"{feature.dtype}{list(feature.shape) or ''}"
                self.refuse(
                    f"resolve.{name}",
                    f"'{source}' is {kind}: an id is a string or an integer, never a float",
                )
        moved = True
        while waiting and moved:
            moved = False
            for name, source in list(waiting.items()):
                entity = self.catalog.entities[source.split(".")[0]]
                if self._keys_of(entity) is not None:
                    self.stage_of[name] = self._read(entity) + 1
                    del waiting[name]
                    moved = True
        for name, source in waiting.items():
            entity = self.catalog.entities[source.split(".")[0]]
            self.refuse(
                f"resolve.{name}", f"{self._no_keys(entity)}, or the ids depend on each other"
            )
            self.stage_of[name] = 0

    def _keys_of(self, entity: Entity) -> tuple[str, ...] | None:
        """Return the ids that are the entity's keys: by the key's name, or by the context."""
        if all(key.name in self.stage_of for key in entity.keys):
            return tuple(key.name for key in entity.keys)
        if len(entity.keys) == 1:
            for name, entity_name in self.inferflow.context.items():
                if entity_name == entity.name:
                    return (name,)
        return None

    def _no_keys(self, entity: Entity) -> str:
        lacking = [key.name for key in entity.keys if key.name not in self.stage_of]
        return (
            f"entity '{entity.name}' is not reached: nothing gives its "
            f"{' and '.join(repr(each) for each in lacking)} (ids: {sorted(self.stage_of)})"
        )

    def _read(self, entity: Entity) -> int:
        """Note that the entity is read; return its stage."""
        if entity.name not in self.reads:
            ids = self._keys_of(entity)
            assert ids is not None
            self.reads[entity.name] = (max(self.stage_of[each] for each in ids), entity, ids)
        return self.reads[entity.name][0]

    def _lay_out_columns(
        self,
    ) -> tuple[
        dict[str, tuple[list[str], list[int]]],
        list[str],
        dict[str, int],
        npt.NDArray[np.float32],
    ]:
        matrix: dict[str, tuple[list[str], list[int]]] = {}
        columns: list[str] = []
        input_positions: dict[str, int] = {}
        inputs = {each.name: each.default for each in self.inferflow.inputs}
        defaults: list[float] = []
        for at, name in enumerate(self.inferflow.features):
            path = f"features[{at}]"
            if self.inferflow.features.index(name) != at:
                self.refuse(path, f"'{name}' is given twice")
                continue
            kind, _, rest = name.partition(".")
            if kind == INPUT:
                if rest not in inputs:
                    self.refuse(path, f"unknown input '{rest}': {did_you_mean(rest, inputs)}")
                input_positions[rest] = len(columns)
                columns.append(name)
                defaults.append(inputs.get(rest, 0.0))
                continue
            try:
                group, feature = self.catalog.feature(name)
            except KiranaError as error:
                self.refuse(path, error.message)
                continue
            if feature.dtype == "string":
                self.refuse(path, f"'{name}' is a string: a matrix holds only numbers")
                continue
            if self._keys_of(group.entity) is None:
                self.refuse(path, self._no_keys(group.entity))
                continue
            self._read(group.entity)
            names, positions = matrix.setdefault(group.entity.name, ([], []))
            names.append(f"{group.short_name}.{feature.name}")
            positions.extend(range(len(columns), len(columns) + feature.size))
            columns += (
                [f"{name}[{each}]" for each in range(feature.size)] if feature.shape else [name]
            )
            defaults += np.ravel(feature.default_array()).tolist()
        if not columns and not self.problems:
            self.refuse("features", "the matrix has no column")
        return matrix, columns, input_positions, _as_matrix_row(defaults)

    def _check_models(self) -> None:
        outputs: set[str] = set()
        for at, call in enumerate(self.inferflow.models):
            if call.model not in self.catalog.models:
                hint = did_you_mean(call.model, self.catalog.models)
                self.refuse(f"models[{at}].model", f"unknown model '{call.model}': {hint}")
            if call.output in outputs:
                self.refuse(f"models[{at}].output", f"'{call.output}' is given twice")
            outputs.add(call.output)

    def _compile_score(self, input_positions: dict[str, int]) -> Expression | None:
        names = {each.output for each in self.inferflow.models}
        names |= {each.name for each in self.inferflow.inputs}
        try:
            score = Expression(self.inferflow.score)
            score.require(frozenset(names))
            score.require_kinds(dict.fromkeys(names, Kind.NUMBER))
            tried = np.asarray(score({name: np.ones(2, dtype=np.float32) for name in names}))
        except InvalidInput as error:
            self.refuse("score", error.message)
            return None
        if tried.dtype.kind not in "fiub" or tried.shape not in ((), (2,)):
            self.refuse("score", f"'{score.text}' does not give one number for each row")
        outputs = {each.output for each in self.inferflow.models}
        for at, each in enumerate(self.inferflow.inputs):
            if each.name in outputs:
                self.refuse(f"inputs[{at}]", f"'{each.name}' is also the name of a model's output")
            if each.name not in input_positions and each.name not in score.names:
                self.refuse(f"inputs[{at}]", f"nothing uses '{each.name}': add 'input.{each.name}'")
        return score

    def _stages(
        self, matrix: dict[str, tuple[list[str], list[int]]]
    ) -> tuple[tuple[EntityRead, ...], ...]:
        stages: dict[int, list[EntityRead]] = {}
        for name, (stage, entity, ids) in self.reads.items():
            names, positions = matrix.get(name, ([], []))
            resolves = tuple(
                (resolved, source.partition(".")[2])
                for resolved, source in self.inferflow.resolve.items()
                if source.split(".")[0] == name
            )
            read = EntityRead(
                entity,
                ids,
                tuple(names),
                np.array(positions, dtype=np.intp),
                _side_by_side(positions),
                resolves,
            )
            stages.setdefault(stage, []).append(read)
        return tuple(tuple(stages[each]) for each in sorted(stages))


def _as_matrix_row(values: Sequence[float]) -> npt.NDArray[np.float32]:
    with np.errstate(over="ignore"):
        return np.array(values, dtype=np.float64).astype(np.float32)


def _side_by_side(positions: Sequence[int]) -> slice | None:
    if positions and list(positions) == list(range(positions[0], positions[-1] + 1)):
        return slice(positions[0], positions[-1] + 1)
    return None
