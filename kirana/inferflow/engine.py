"""The execution of a plan: read the entities, build the matrix, run the models, compute the scores.

`kirana.inferflow.source` has the interface. The work is done per group and per column with numpy;
only ids are handled row by row.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kirana import native
from kirana.byte_limit import check_bytes
from kirana.catalog.revisions import CatalogSource, Revisions
from kirana.catalog.snapshot import Catalog
from kirana.codecs.rows import Provenance
from kirana.errors import InvalidInput, ModelFailed, TooLarge, did_you_mean
from kirana.features import EntityRows, FeatureQuery, FeatureSource
from kirana.inferflow.plan import EntityRead, Plan
from kirana.inferflow.source import MAX_ROWS, InferRequest, InferResult
from kirana.key_texts import MAX_KEY_BYTES, checked_ids, id_text, join_ids
from kirana.loop import INLINE_ROWS, inline_or_thread
from kirana.models import ModelRunner
from kirana.models.runner import MATRIX
from kirana.request import RequestContext
from kirana.revision import Revision
from kirana.schema import Array, Entity, Key
from kirana.service import Health

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class _Ids:
    """The texts of one id: one per row, or one for all rows. The text of an unknown id is "".

    If they are `as_stored`, they come from a string feature and may be invalid as ids. If they are
    `plain`, they are known to be short enough for keys, and to need no escapes.
    """

    texts: list[str]
    per_row: bool
    as_stored: bool = False
    plain: bool = False


@dataclass(frozen=True, slots=True)
class _Keys:
    """The distinct key texts of one entity.

    If they are `per_row`, `index` has, for each row, the position of its key text in `texts`; None
    means that row i has key text i. Otherwise there is one key text for all rows.
    """

    texts: Sequence[str]
    index: npt.NDArray[np.intp] | None
    per_row: bool

    def spread(self, values: Array) -> Array:
        """Return one value per row, from one value per key.

        If all rows have one key text, return a single value, which numpy broadcasts.
        """
        return values if self.index is None else values[self.index]


class InferflowService:
    """`InferflowRunner` over a feature source and a model runner.

    `max_rows` is the limit of rows per request.
    """

    def __init__(
        self,
        features: FeatureSource,
        models: ModelRunner,
        source: CatalogSource,
        *,
        max_rows: int = MAX_ROWS,
    ) -> None:
        self._features = features
        self._models = models
        self._max_rows = max_rows
        self._catalogs: Revisions[Catalog] = Revisions(source, lambda catalog: catalog)

    async def prepare(self, revision: Revision) -> None:
        """Load a revision here and in the models part. Raise `Unavailable` if that fails."""
        await self._catalogs.at(revision)
        await self._models.prepare(revision)

    async def health(self, revision: Revision) -> Health:
        """Load a revision as `prepare` does; raise `Unavailable` if that fails."""
        await self.prepare(revision)
        return Health()

    async def infer(self, request: InferRequest, context: RequestContext) -> InferResult:
        """Run the plan of an inferflow. The key texts of many rows are made in a thread.

        Raise `TooLarge` if the request has more than `max_rows` rows, or if the matrix has more
        than `MAX_READ_BYTES`. Also raise the other errors of the protocol.
        """
        catalog = await self._catalogs.of(context)
        catalog.inferflow(request.model_id, field="model_id")
        plan: Plan = catalog.compiled("inferflow", request.model_id)
        ids = self._context_ids(plan, request)
        rows = len(ids[plan.rows].texts)
        check_bytes(
            4 * rows * len(plan.columns),
            f"{rows} rows x {len(plan.columns)} columns",
            "send fewer rows at a time",
            field=("context", plan.rows),
        )
        matrix: Floats = np.empty((rows, len(plan.columns)), dtype=np.float32)
        inputs = _read_inputs(plan, request, rows)
        for name, position in plan.input_positions.items():
            matrix[:, position] = inputs[name]
        defaults: dict[str, int] = {}
        if rows:
            for stage in plan.stages:
                matrix = await self._run_stage(stage, ids, matrix, defaults, rows, context)
        outputs = await self._score_models(plan, matrix, context)
        scores = plan.score({**inputs, **outputs})
        scores = np.asarray(scores, dtype=np.float32)
        if scores.shape == ():
            # An expression without names gives one number for all rows.
            scores = np.broadcast_to(scores, (rows,))
        elif scores.shape != (rows,):
            reason = f"its score must have the shape [{rows}], not {list(scores.shape)}"
            raise ModelFailed(plan.name, reason, kind="inferflow")
        texts = ids[plan.rows].texts
        if request.top_k is None:
            kept = matrix if request.keep_matrix else None
            return InferResult(texts, scores, outputs, plan.columns, kept, defaults)
        best = np.argsort(-scores, kind="stable")[: request.top_k]
        return InferResult(
            [texts[i] for i in best.tolist()],
            scores[best],
            {name: values[best] for name, values in outputs.items()},
            plan.columns,
            matrix[best] if request.keep_matrix else None,
            defaults,
        )

    def _context_ids(self, plan: Plan, request: InferRequest) -> dict[str, _Ids]:
        """Return the ids of a request by name.

        Raise `InvalidInput` with the field `context.<name>` if an id is missing, unknown or
        invalid, and `TooLarge` if there are more than `max_rows` rows or an id is too long.
        """
        for name in request.context:
            if name not in plan.context:
                raise InvalidInput(
                    f"'{plan.name}' has no id '{name}': {did_you_mean(name, plan.context)}",
                    field=f"context.{name}",
                )
        ids = {}
        for name in plan.context:
            field = f"context.{name}"
            value = request.context.get(name)
            if value is None:
                raise InvalidInput(
                    f"'{name}' is missing in the context: '{plan.name}' needs it", field=field
                )
            is_list = not isinstance(value, str | int)
            if is_list != (name == plan.rows):
                wanted = "a list with one id per row" if name == plan.rows else "one id, not a list"
                raise InvalidInput(f"'{name}' must be {wanted}", field=field)
            key = _key_of(plan.context[name], name)
            if isinstance(value, str | int):
                ids[name] = _Ids([id_text(key, value, field=field)], per_row=False)
                continue
            values = value if isinstance(value, list) else list(value)
            if len(values) > self._max_rows:
                raise TooLarge(
                    f"the request has {len(values)} rows, the limit is {self._max_rows}",
                    field=field,
                )
            texts, plain = checked_ids(key, values, field=field)
            ids[name] = _Ids(texts, per_row=True, plain=plain)
        return ids

    async def _run_stage(
        self,
        stage: Sequence[EntityRead],
        ids: dict[str, _Ids],
        matrix: Floats,
        defaults: dict[str, int],
        rows: int,
        context: RequestContext,
    ) -> Floats:
        """Read the entities of a stage; return the matrix with their columns filled in.

        The ids that the stage resolves are added to `ids`, and the numbers of rows with defaults to
        `defaults`. Do not write to the result: it may be a view of stored rows.
        """
        inline = rows <= 2 * INLINE_ROWS
        keys = [
            await inline_or_thread(
                inline, _distinct_keys, read.entity, [ids[name] for name in read.ids]
            )
            for read in stage
        ]
        queries = [
            FeatureQuery(
                read.entity.name,
                entity_keys.texts,
                read.matrix,
                tuple(dict.fromkeys(feature for _, feature in read.resolves)),
                provenance=bool(read.resolves),
            )
            for read, entity_keys in zip(stage, keys, strict=True)
        ]
        answers = await self._features.read(queries, context)
        for read, entity_keys, answer in zip(stage, keys, answers, strict=True):
            if read.matrix:
                columns = entity_keys.spread(answer.matrix)
                if columns.shape == matrix.shape:
                    # These columns are the whole matrix, so no copy is needed.
                    matrix = columns
                else:
                    positions = read.column_slice
                    matrix[:, read.positions if positions is None else positions] = columns
            for name, feature in read.resolves:
                ids[name] = _resolved_ids(answer, feature, entity_keys)
            for group, status in answer.status.items():
                default_count = int(np.count_nonzero(entity_keys.spread(status)))
                if default_count:
                    full_name = f"{read.entity.name}.{group}"
                    defaults[full_name] = default_count if entity_keys.per_row else rows
        return matrix

    async def _score_models(
        self, plan: Plan, matrix: Floats, context: RequestContext
    ) -> dict[str, Floats]:
        """Return the outputs of all models by the name of the output.

        The models run concurrently. If the matrix has no rows, they do not run.
        """
        if len(matrix) == 0:
            return {call.output: np.empty(0, dtype=np.float32) for call in plan.calls}
        inputs = {MATRIX: matrix}
        runs = [
            self._models.run(model, inputs, outputs, context)
            for model, outputs in plan.outputs_by_model.items()
        ]
        results = [await runs[0]] if len(runs) == 1 else await asyncio.gather(*runs)
        scores = {output: values for result in results for output, values in result.items()}
        return {call.output: scores[call.output] for call in plan.calls}


def _key_of(entity: Entity, name: str) -> Key:
    """Return the key of an entity that decides which values the id `name` may have.

    This is the key with the same name or, if there is none, the first key.
    """
    return next((key for key in entity.keys if key.name == name), entity.keys[0])


def _distinct_keys(entity: Entity, ids: Sequence[_Ids]) -> _Keys:
    """Return the distinct key texts of an entity, joined from `ids`, which has one entry per key.

    For an unknown id, or a key text that is too long, the result has a key text that no row is
    stored under.
    """
    per_row = any(column.per_row for column in ids)
    if len(ids) == 1 and ids[0].plain:
        texts = ids[0].texts
    else:
        rows = max(len(column.texts) for column in ids)
        columns = [
            [_as_id(key, text) for text in column.texts] if column.as_stored else column.texts
            for key, column in zip(entity.keys, ids, strict=True)
        ]
        texts = join_ids(
            [
                values if column.per_row else values * rows
                for values, column in zip(columns, ids, strict=True)
            ]
        )
        # If a single id of the request is the key text, its length was checked before.
        checked = len(ids) == 1 and not ids[0].as_stored and texts is ids[0].texts
        if not checked and max(map(len, texts), default=0) * 4 > MAX_KEY_BYTES:
            texts = [text if len(text.encode()) <= MAX_KEY_BYTES else "" for text in texts]
    if (native.COMPILED and native.keys.surely_distinct(texts)) or len(set(texts)) == len(texts):
        return _Keys(texts, None, per_row)
    positions = {text: i for i, text in enumerate(dict.fromkeys(texts))}
    index = np.fromiter(map(positions.__getitem__, texts), dtype=np.intp, count=len(texts))
    return _Keys(list(positions), index, per_row)


def _resolved_ids(answer: EntityRows, feature: str, keys: _Keys) -> _Ids:
    """Return the ids that a feature holds: one per row, or one for all rows.

    Where no value is stored, the id is "", so that the default of a feature is never used as an id.
    """
    values = answer.columns[feature].values
    texts = [str(value) for value in values.tolist()]
    for i in np.flatnonzero(answer.provenance[feature] != Provenance.STORED).tolist():
        texts[i] = ""
    if keys.index is not None:
        texts = [texts[i] for i in keys.index.tolist()]
    return _Ids(texts, keys.per_row, as_stored=values.dtype == object)


def _as_id(key: Key, text: str) -> str:
    """Return a stored text as a canonical id, or "" if it is not an id of this key."""
    try:
        return id_text(key, text, field="")
    except InvalidInput:
        return ""


def _read_inputs(plan: Plan, request: InferRequest, rows: int) -> dict[str, Floats]:
    """Return the inputs of a plan by name, `float32[rows]` each, with defaults for missing ones.

    Raise `InvalidInput` with the field `inputs.<name>` if one is unknown or does not fit.
    """
    for name in request.inputs:
        if name not in plan.inputs:
            raise InvalidInput(
                f"'{plan.name}' has no input '{name}': {did_you_mean(name, plan.inputs)}",
                field=f"inputs.{name}",
            )
    inputs: dict[str, Floats] = {}
    for name, default in plan.inputs.items():
        numbers = request.inputs.get(name, default)
        try:
            values = _floats(numbers)
        except (TypeError, ValueError, OverflowError) as error:
            raise InvalidInput(
                f"the input can't be used: {error}", field=f"inputs.{name}"
            ) from None
        if values.ndim and values.shape != (rows,):
            raise InvalidInput(
                f"an input must be one number, or one number per row ({rows}), not an array "
                f"of shape {list(values.shape)}",
                field=f"inputs.{name}",
            )
        inputs[name] = np.broadcast_to(values, (rows,))
    return inputs


def _floats(numbers: object) -> Floats:
    """Return a number or numbers as a float32 array.

    Raise `ValueError` if a finite number is out of the range of float32, and `ValueError`,
    `TypeError` or `OverflowError` for anything that numpy can't convert.
    """
    if isinstance(numbers, np.ndarray) and numbers.dtype == np.float32:
        return numbers
    wide = np.asarray(numbers, dtype=np.float64)
    if (np.isfinite(wide) & (np.abs(wide) > float(np.finfo(np.float32).max))).any():
        raise ValueError("a number is out of the range of float32")
    return wide.astype(np.float32)
