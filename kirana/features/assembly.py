"""Assembly of the answer to a feature query from the fetched rows of its groups."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from kirana.codecs import Column, Rows, Status
from kirana.codecs.rows import MatrixPlan, Provenance, Tier
from kirana.features.fetch import Fetched
from kirana.features.plans import Plan
from kirana.features.source import EntityRows, FeatureQuery
from kirana.schema import Array


def decode(plan: Plan, fetched: Sequence[Fetched], now_ms: int) -> list[Rows]:
    """Return the decoded rows of each group of a plan.

    `fetched` has one entry per group. `now_ms` (Unix milliseconds) decides which rows have expired.
    """
    return [
        group_values.decode(read.group, now_ms / 1000)
        for read, group_values in zip(plan.groups, fetched, strict=True)
    ]


def assemble(
    query: FeatureQuery,
    plan: Plan,
    decoded: Sequence[Rows],
    fetched: Sequence[Fetched],
    now_ms: int,
) -> EntityRows:
    """Return the answer to a query.

    `decoded` and `fetched` have one entry per group of the plan. The age of a row is `now_ms` (Unix
    milliseconds) minus its event time.
    """
    view = None
    if len(plan.groups) == 1 and plan.groups[0].matrix_plan is not None:
        # If the stored rows contain the matrix as it is, no cell is copied.
        view = decoded[0].view(plan.groups[0].matrix_plan)
    matrix = np.empty((len(query.keys), plan.width), dtype=np.float32) if view is None else view
    columns: dict[str, Column] = {}
    status: dict[str, Array] = {}
    age_ms: dict[str, Array] = {}
    provenance: dict[str, Array] = {}
    tier: dict[str, Array] = {}
    for read, rows, group_values in zip(plan.groups, decoded, fetched, strict=True):
        group_name = read.group.short_name
        status[group_name] = rows.status
        if read.matrix_plan is not None and view is None:
            _fill(matrix, read.matrix_plan, read.spans, rows)
        for name, query_name in zip(read.column_names, read.query_names, strict=True):
            columns[query_name] = rows.column(name)
            if query.provenance:
                provenance[query_name] = rows.provenance(name)
        if query.provenance:
            times = rows.event_time_ms.astype(np.int64)
            has_row = (rows.status == Status.OK) | (rows.status == Status.EXPIRED)
            age_ms[group_name] = np.where(has_row, now_ms - times, -1)
            tier[group_name] = np.where(has_row, group_values.tiers(), np.uint8(Tier.NONE))
    nulls = _matrix_nulls(query, plan, decoded) if query.nulls else None
    return EntityRows(matrix, columns, status, age_ms, provenance, nulls, tier)


def _fill(matrix: Array, plan: MatrixPlan, spans: Sequence[slice], rows: Rows) -> None:
    """Write a group's features to their columns of the matrix.

    Write them directly if the columns are contiguous, otherwise by way of a temporary block.
    """
    first, last = spans[0], spans[-1]
    width = sum(plan.sizes)
    if last.stop - first.start == width:
        rows.fill(matrix[:, first.start : last.stop], plan)
        return
    block = np.empty((len(matrix), width), dtype=np.float32)
    rows.fill(block, plan)
    start = 0
    for span, size in zip(spans, plan.sizes, strict=True):
        matrix[:, span] = block[:, start : start + size]
        start += size


def _matrix_nulls(
    query: FeatureQuery, plan: Plan, decoded: Sequence[Rows]
) -> npt.NDArray[np.bool_] | None:
    """Return which features of the query's `matrix` are null in the store, `bool[keys, features]`.

    Return None if no cell of the decoded rows is null.
    """
    if not any(rows.any_nulls for rows in decoded):
        return None
    nulls = np.zeros((len(query.keys), len(query.matrix)), dtype=np.bool_)
    for read, rows in zip(plan.groups, decoded, strict=True):
        for name, position in zip(read.matrix_names, read.positions, strict=True):
            nulls[:, position] = rows.provenance(name) == Provenance.NULL
    return nulls
