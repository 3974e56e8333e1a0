"""Runs a plan: reads entities stage by stage, builds the matrix, calls the models, scores.

See `InferflowRunner` for the contract. Work is by group and column; over rows only where ids are
text.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kirana import native
from kirana.catalog.revisions import CatalogSource, Revisions
from kirana.catalog.snapshot import Catalog
from kirana.codecs.rows import Provenance
from kirana.errors import InvalidInput, ModelFailed, TooLarge
from kirana.features import EntityRows, FeatureQuery, FeatureSource
from kirana.inferflow.plan import EntityRead, Plan
from kirana.inferflow.source import MAX_ROWS, InferRequest, InferResult
from kirana.key_texts import MAX_KEY_BYTES, id_text, join_ids, measured_ids
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
    """Texts of one id: a value for each row, or one for all. "" is unknown.

    `as_stored` texts come out of a string feature: anything, that may be no id of an entity. Of
    `plain` ones it is known that they are short, and none has to be escaped.
    """

    texts: list[str]
    per_row: bool
    as_stored: bool = False
    plain: bool = False


@dataclass(frozen=True, slots=True)
class _Keys:
    """Distinct key texts of one entity; `index` leads from rows to them (None: row i is key i)."""

    texts: Sequence[str]
    index: npt.NDArray[np.intp] | None
    per_row: bool

    def spread(self, values: Array) -> Array:
        """From a value a key to a value a row; one for all stays one, to be broadcast."""
        return values if self.index is None else values[self.index]


class InferflowService:
    """Implements `InferflowRunner` over a feature source and a model runner."""

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
        await self._catalogs.at(revision)
        await self._models.prepare(revision)

    async def health(self, revision: Revision) -> Health:
        await self.prepare(revision)
        return Health()

    async def infer(self, request: InferRequest, context: RequestContext) -> InferResult:
        catalog = await self._catalogs.at(context.revision)
        catalog.inferflow(request.model_id, field="model_id")
        plan: Plan = catalog.compiled("inferflow", request.model_id)
        ids = self._context_ids(plan, request)
        rows = len(ids[plan.rows].texts)
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
            # an expression without a column: one number for all
            scores = np.broadcast_to(scores, (rows,))
        elif scores.shape != (rows,):
            raise ModelFailed(plan.name, f"its score has the shape {scores.shape} for {rows} rows")
        texts = ids[plan.rows].texts
        if request.top_k is None:
            kept = matrix if request.keep_matrix else None
            return InferResult(texts, scores, outputs, plan.columns, kept, defaults)
        best = np.argsort(-scores, kind="stable")[: request.top_k]
        return InferResult(
            [texts[at] for at in best.tolist()],
            scores[best],
            {name: values[best] for name, values in outputs.items()},
            plan.columns,
            matrix[best] if request.keep_matrix else None,
            defaults,
        )

    def _context_ids(self, plan: Plan, request: InferRequest) -> dict[str, _Ids]:
        for name in request.context:
            if name not in plan.context:
                raise InvalidInput(
                    f"'{plan.name}' takes no id '{name}': its context is {list(plan.context)}",
                    field=f"context.{name}",
                )
        ids = {}
        for name in plan.context:
            field = f"context.{name}"
            value = request.context.get(name)
            if value is None:
                raise InvalidInput(f"'{plan.name}' needs '{name}'", field=field)
            many = not isinstance(value, str | int)
            if many != (name == plan.rows):
                wanted = (
                    "a list with one id for each row" if name == plan.rows else "one id, not a list"
                )
                raise InvalidInput(f"'{name}' must be {wanted}", field=field)
            key = _key_of(plan.context[name], name)
            if isinstance(value, str | int):
                ids[name] = _Ids([id_text(key, value, field=field)], per_row=False)
                continue
            given = value if isinstance(value, list) else list(value)
            if len(given) > self._max_rows:
                raise TooLarge(f"{len(given)} rows, the limit is {self._max_rows}", field=field)
            texts, plain = measured_ids(key, given, field=field)
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
        """Read what a stage needs; return the matrix with its columns."""
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
                found.texts,
                read.matrix,
                tuple(dict.fromkeys(feature for _, feature in read.resolves)),
                provenance=bool(read.resolves),
            )
            for read, found in zip(stage, keys, strict=True)
        ]
        answers = await self._features.read(queries, context)
        for read, found, answer in zip(stage, keys, answers, strict=True):
            if read.matrix:
                columns = found.spread(answer.matrix)
                if columns.shape == matrix.shape:
                    # it is all of the matrix
                    matrix = columns
                else:
                    positions = read.side_by_side
                    matrix[:, read.positions if positions is None else positions] = columns
            for name, feature in read.resolves:
                ids[name] = _resolved_ids(answer, feature, found)
            for group, status in answer.status.items():
                bad = int(np.count_nonzero(found.spread(status)))
                if bad:
                    full_name = f"{read.entity.name}.{group}"
                    defaults[full_name] = bad if found.per_row else rows
        return matrix

    async def _score_models(
        self, plan: Plan, matrix: Floats, context: RequestContext
    ) -> dict[str, Floats]:
        if len(matrix) == 0:
            return {call.output: np.empty(0, dtype=np.float32) for call in plan.calls}
        inputs = {MATRIX: matrix}
        runs = [
            self._models.run(model, inputs, outputs, context)
            for model, outputs in plan.outputs_of.items()
        ]
        found = [await runs[0]] if len(runs) == 1 else await asyncio.gather(*runs)
        scores = {output: values for each in found for output, values in each.items()}
        return {call.output: scores[call.output] for call in plan.calls}


def _key_of(entity: Entity, name: str) -> Key:
    """The context names an entity by one id: its only key, or the key of that name."""
    return next((key for key in entity.keys if key.name == name), entity.keys[0])


def _distinct_keys(entity: Entity, ids: Sequence[_Ids]) -> _Keys:
    """Join an entity's ids to key texts and keep each distinct one once.

    An unknown id ("") makes a key that no row is ever stored under, and so does what is too long.
    """
    per_row = any(each.per_row for each in ids)
    if len(ids) == 1 and ids[0].plain:
        texts = ids[0].texts
    else:
        rows = max(len(each.texts) for each in ids)
        columns = [
            [_as_id(key, text) for text in each.texts] if each.as_stored else each.texts
            for key, each in zip(entity.keys, ids, strict=True)
        ]
        texts = join_ids(
            [c if each.per_row else c * rows for c, each in zip(columns, ids, strict=True)]
        )
        # the texts of a request were measured before they were joined
        checked = len(ids) == 1 and not ids[0].as_stored and texts is ids[0].texts
        if not checked and max(map(len, texts), default=0) * 4 > MAX_KEY_BYTES:
            texts = [text if len(text.encode()) <= MAX_KEY_BYTES else "" for text in texts]
    if (native.COMPILED and native.keys.distinct(texts)) or len(set(texts)) == len(texts):
        return _Keys(texts, None, per_row)
    positions = {text: at for at, text in enumerate(dict.fromkeys(texts))}
    index = np.fromiter(map(positions.__getitem__, texts), dtype=np.intp, count=len(texts))
    return _Keys(list(positions), index, per_row)


def _resolved_ids(answer: EntityRows, feature: str, keys: _Keys) -> _Ids:
    """Ids out of a feature; "" where none is stored, so that no default becomes an id."""
    values = answer.columns[feature].values
    texts = [str(each) for each in values.tolist()]
    for at in np.flatnonzero(answer.provenance[feature] != Provenance.STORED).tolist():
        texts[at] = ""
    if keys.index is not None:
        texts = [texts[at] for at in keys.index.tolist()]
    return _Ids(texts, keys.per_row, as_stored=values.dtype == object)


def _as_id(key: Key, text: str) -> str:
    """Return a stored text as the id that it spells, "" where it can be none."""
    try:
        return id_text(key, text, field="")
    except InvalidInput:
        return ""


def _read_inputs(plan: Plan, request: InferRequest, rows: int) -> dict[str, Floats]:
    for name in request.inputs:
        if name not in plan.inputs:
            raise InvalidInput(
                f"'{plan.name}' takes no input '{name}': it takes {sorted(plan.inputs)}",
                field=f"inputs.{name}",
            )
    inputs: dict[str, Floats] = {}
    for name, default in plan.inputs.items():
        given = request.inputs.get(name, default)
        try:
            values = _floats(given)
        except (TypeError, ValueError, OverflowError) as error:
            raise InvalidInput(
                f"an input must hold numbers: {error}", field=f"inputs.{name}"
            ) from None
        if values.ndim and values.shape != (rows,):
            raise InvalidInput(
                f"an input must be one number, or one for each of the {rows} rows, not "
                f"{values.size}",
                field=f"inputs.{name}",
            )
        inputs[name] = np.broadcast_to(values, (rows,))
    return inputs


def _floats(given: object) -> Floats:
    """Raise `ValueError` for a number that is infinite as a float32, and was not before."""
    if isinstance(given, np.ndarray) and given.dtype == np.float32:
        return given
    wide = np.asarray(given, dtype=np.float64)
    if (np.isfinite(wide) & (np.abs(wide) > float(np.finfo(np.float32).max))).any():
        raise ValueError("a number is out of the range of float32")
    return wide.astype(np.float32)
