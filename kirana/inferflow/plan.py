"""The plan of an inferflow, checked and compiled.

A plan says which entities are read in which order, and which columns of the matrix they fill. The
first stage reads the entities whose ids are in the request. Each later stage reads entities whose
ids were resolved from features of earlier stages. Nothing here reads features or runs models.
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
"""The prefix of inputs among the features: `input.<name>`. Their values come with the request."""

ID_DTYPES = ("string", *(name for name in NUMERIC if not name.startswith("float")))
"""The dtypes of features that an id can be resolved from."""


@dataclass(frozen=True, slots=True)
class EntityRead:
    """A read of one entity.

    `ids` are the names of the ids that form its key text. `matrix` are the features of the entity
    in the matrix, as `group.feature`, and `positions` the columns that they fill.
    """

    entity: Entity
    ids: tuple[str, ...]
    matrix: tuple[str, ...]
    positions: npt.NDArray[np.intp]
    column_slice: slice | None
    """`positions` as a slice, or None if the columns are not contiguous."""
    resolves: tuple[tuple[str, str], ...]
    """Pairs of an id that is resolved by this read, and the `group.feature` that holds it."""


@dataclass(frozen=True, slots=True)
class ModelCall:
    """One output of one model. The score expression uses the output by its name."""

    model: str
    output: str


@dataclass(frozen=True)
class Plan:
    """A compiled inferflow.

    `rows` is the name of the id that is a list. `columns` are the names of the matrix columns.
    `inputs` has the default of each input by name, and `input_positions` the column of each input
    that is in the matrix.
    """

    name: str
    context: dict[str, Entity]
    """The entity of each id in a request, by the name of the id."""
    rows: str
    stages: tuple[tuple[EntityRead, ...], ...]
    inputs: dict[str, float]
    input_positions: dict[str, int]
    columns: tuple[str, ...]
    calls: tuple[ModelCall, ...]
    score: Expression
    default_row: npt.NDArray[np.float32]
    """The default of each column: the row of the matrix if nothing is stored or sent."""

    @cached_property
    def outputs_by_model(self) -> dict[str, tuple[str, ...]]:
        """The outputs that the plan needs, by model. A model runs once for all of its outputs."""
        outputs: dict[str, tuple[str, ...]] = {}
        for call in self.calls:
            outputs[call.model] = (*outputs.get(call.model, ()), call.output)
        return outputs


def compile_inferflow(inferflow: InferflowObject, catalog: Catalog) -> Plan:
    """Return the plan of an inferflow.

    Raise `CatalogError` with one `Problem` for each error that was found.
    """
    return _Compiler(inferflow, catalog).compile()


class _Compiler:
    """The compilation of one inferflow, which collects all problems before it fails."""

    def __init__(self, inferflow: InferflowObject, catalog: Catalog) -> None:
        self.inferflow = inferflow
        self.catalog = catalog
        self.problems: list[Problem] = []
        self.stage_of: dict[str, int] = {}
        """The first stage that can use an id, by the name of the id."""
        self.reads: dict[str, tuple[int, Entity, tuple[str, ...]]] = {}
        """The stage, the entity and the names of its ids for each read, by the entity's name."""

    def add_problem(self, path: str, message: str) -> None:
        """Add a problem at `path` in the inferflow."""
        self.problems.append(Problem(message, path=path))

    def compile(self) -> Plan:
        """Return the plan. Raise `CatalogError` with all problems."""
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
            inputs={item.name: float(item.default) for item in inferflow.inputs},
            input_positions=input_positions,
            columns=tuple(columns),
            calls=tuple(ModelCall(call.model, call.output) for call in inferflow.models),
            score=score,
            default_row=default_row,
        )

    def _check_context(self) -> None:
        """Check that the ids of the context name distinct entities, and that `rows` is an id."""
        inferflow = self.inferflow
        for name, entity in inferflow.context.items():
            if entity not in self.catalog.entities:
                hint = did_you_mean(entity, self.catalog.entities)
                self.add_problem(f"context.{name}", f"unknown entity '{entity}': {hint}")
            first_id = next(
                id_ for id_, other_entity in inferflow.context.items() if other_entity == entity
            )
            if first_id != name:
                message = (
                    f"'{entity}' is already the entity of '{first_id}': its features would be "
                    "ambiguous"
                )
                self.add_problem(f"context.{name}", message)
            self.stage_of[name] = 0
        if inferflow.rows not in inferflow.context:
            hint = did_you_mean(inferflow.rows, inferflow.context)
            self.add_problem("rows", f"'{inferflow.rows}' is not an id of the context: {hint}")

    def _order_resolved(self) -> None:
        """Find the first stage that can use each resolved id.

        An id can be resolved once the ids of the entity that holds it are known. Ids that can't be
        resolved depend on each other, or on ids that the inferflow does not have. Add a problem for
        each of them, and for each id whose feature is unknown or unsuitable.
        """
        waiting = dict(self.inferflow.resolve)
        for name, source in list(waiting.items()):
            try:
                _, feature = self.catalog.feature(source)
            except KiranaError as error:
                self.add_problem(f"resolve.{name}", error.message)
                del waiting[name]
                self.stage_of[name] = 0
                continue
            if name in self.inferflow.context:
                self.add_problem(f"resolve.{name}", f"'{name}' is already an id of the context")
                del waiting[name]
            elif feature.shape or feature.dtype not in ID_DTYPES:
                kind = f"{feature.dtype}{list(feature.shape) or ''}"
                self.add_problem(
                    f"resolve.{name}",
                    f"'{source}' must be a single string or integer to be an id, not {kind}",
                )
        progressed = True
        while waiting and progressed:
            progressed = False
            for name, source in list(waiting.items()):
                entity = self.catalog.entities[source.split(".")[0]]
                if self._ids_of(entity) is not None:
                    self.stage_of[name] = self._add_read(entity) + 1
                    del waiting[name]
                    progressed = True
        for name in waiting:
            self.add_problem(
                f"resolve.{name}",
                f"'{name}' can't be resolved: it depends on itself, or on an id that is neither in "
                "'context' nor in 'resolve'",
            )
            self.stage_of[name] = 0

    def _ids_of(self, entity: Entity) -> tuple[str, ...] | None:
        """Return the names of the ids that form an entity's key text; None if one is not known.

        The id for a key has the name of the key. For an entity with a single key, it may also be an
        id of the context that is declared with this entity, under any name.
        """
        if all(key.name in self.stage_of for key in entity.keys):
            return tuple(key.name for key in entity.keys)
        if len(entity.keys) == 1:
            for name, entity_name in self.inferflow.context.items():
                if entity_name == entity.name:
                    return (name,)
        return None

    def _missing_keys_message(self, entity: Entity) -> str:
        """Return the message for an entity whose ids are not known."""
        missing = [repr(key.name) for key in entity.keys if key.name not in self.stage_of]
        return (
            f"entity '{entity.name}' needs {' and '.join(missing)} in 'context' or 'resolve' "
            f"(known ids: {', '.join(sorted(self.stage_of))})"
        )

    def _add_read(self, entity: Entity) -> int:
        """Add a read of an entity, unless there is one; return its stage.

        The ids of the entity must be known.
        """
        if entity.name not in self.reads:
            ids = self._ids_of(entity)
            assert ids is not None
            self.reads[entity.name] = (max(self.stage_of[id_] for id_ in ids), entity, ids)
        return self.reads[entity.name][0]

    def _lay_out_columns(
        self,
    ) -> tuple[
        dict[str, tuple[list[str], list[int]]],
        list[str],
        dict[str, int],
        npt.NDArray[np.float32],
    ]:
        """Return the layout of the matrix, and add the reads of its features.

        The layout consists of the features and their positions by entity, the names of the columns,
        the positions of the inputs by name, and the row of defaults.
        """
        matrix: dict[str, tuple[list[str], list[int]]] = {}
        columns: list[str] = []
        input_positions: dict[str, int] = {}
        inputs = {item.name: item.default for item in self.inferflow.inputs}
        defaults: list[float] = []
        for position, name in enumerate(self.inferflow.features):
            path = f"features[{position}]"
            if self.inferflow.features.index(name) != position:
                self.add_problem(path, f"'{name}' is given twice")
                continue
            prefix, _, input_name = name.partition(".")
            if prefix == INPUT:
                if input_name not in inputs:
                    self.add_problem(
                        path, f"unknown input '{input_name}': {did_you_mean(input_name, inputs)}"
                    )
                input_positions[input_name] = len(columns)
                columns.append(name)
                defaults.append(inputs.get(input_name, 0.0))
                continue
            try:
                group, feature = self.catalog.feature(name)
            except KiranaError as error:
                self.add_problem(path, error.message)
                continue
            if feature.dtype == "string":
                self.add_problem(path, f"'{name}' is a string: a matrix holds only numbers")
                continue
            if self._ids_of(group.entity) is None:
                self.add_problem(path, self._missing_keys_message(group.entity))
                continue
            self._add_read(group.entity)
            names, positions = matrix.setdefault(group.entity.name, ([], []))
            names.append(f"{group.short_name}.{feature.name}")
            positions.extend(range(len(columns), len(columns) + feature.size))
            columns += [f"{name}[{i}]" for i in range(feature.size)] if feature.shape else [name]
            defaults += np.ravel(feature.default_array()).tolist()
        if not columns and not self.problems:
            self.add_problem("features", "the matrix must have at least one column")
        return matrix, columns, input_positions, _as_matrix_row(defaults)

    def _check_models(self) -> None:
        """Check that the models exist, and that the names of all outputs differ."""
        outputs: set[str] = set()
        for position, call in enumerate(self.inferflow.models):
            if call.model not in self.catalog.models:
                hint = did_you_mean(call.model, self.catalog.models)
                self.add_problem(
                    f"models[{position}].model", f"unknown model '{call.model}': {hint}"
                )
            if call.output in outputs:
                self.add_problem(f"models[{position}].output", f"'{call.output}' is given twice")
            outputs.add(call.output)

    def _compile_score(self, input_positions: dict[str, int]) -> Expression | None:
        """Return the score expression, or None if it can't be compiled.

        Evaluate it on two rows, to check that it gives one number per row. Also check that each
        input is used, and that no input has the name of an output.
        """
        names = {call.output for call in self.inferflow.models}
        names |= {item.name for item in self.inferflow.inputs}
        try:
            score = Expression(self.inferflow.score)
            score.require(frozenset(names))
            score.require_kinds(dict.fromkeys(names, Kind.NUMBER))
            result = np.asarray(score({name: np.ones(2, dtype=np.float32) for name in names}))
        except InvalidInput as error:
            self.add_problem("score", error.message)
            return None
        if result.dtype.kind not in "fiub" or result.shape not in ((), (2,)):
            self.add_problem("score", f"'{score.text}' does not give one number per row")
        outputs = {call.output for call in self.inferflow.models}
        for position, item in enumerate(self.inferflow.inputs):
            if item.name in outputs:
                self.add_problem(
                    f"inputs[{position}]", f"'{item.name}' is also the name of a model's output"
                )
            if item.name not in input_positions and item.name not in score.names:
                self.add_problem(
                    f"inputs[{position}]",
                    f"nothing uses '{item.name}': add 'input.{item.name}' to the features",
                )
        return score

    def _stages(
        self, matrix: dict[str, tuple[list[str], list[int]]]
    ) -> tuple[tuple[EntityRead, ...], ...]:
        """Return the reads of each stage. `matrix` has the features and positions by entity."""
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
                _slice_of(positions),
                resolves,
            )
            stages.setdefault(stage, []).append(read)
        return tuple(tuple(stages[number]) for number in sorted(stages))


def _as_matrix_row(values: Sequence[float]) -> npt.NDArray[np.float32]:
    """Return numbers as float32. A number that is out of the range of float32 becomes infinite."""
    with np.errstate(over="ignore"):
        return np.array(values, dtype=np.float64).astype(np.float32)


def _slice_of(positions: Sequence[int]) -> slice | None:
    """Return positions as a slice, or None if they are not contiguous and in order."""
    if positions and list(positions) == list(range(positions[0], positions[-1] + 1)):
        return slice(positions[0], positions[-1] + 1)
    return None
