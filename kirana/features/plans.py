"""Plans of feature queries: which groups to read, and where their features go in the answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from kirana.catalog.snapshot import Catalog
from kirana.codecs.rows import MatrixPlan
from kirana.features.source import FeatureQuery
from kirana.schema import FeatureGroup

MAX_PLANS = 512
"""How many query plans a revision keeps. Clients choose their queries, so there must be a limit.

When it is reached, all plans are dropped, and made again when they are needed.
"""


@dataclass
class GroupRead:
    """The read of one group, with its features in a query.

    `matrix_names` are the features for the matrix. For each of them, `spans` has its columns in the
    matrix, and `positions` its position in the query's `matrix`. `column_names` are the features to
    return as columns. For each of them, `query_names` has the name in the query, `group.feature`,
    which may be an alias. `matrix_names` and `column_names` are names of the current schema
    version.
    """

    group: FeatureGroup
    matrix_names: list[str] = field(default_factory=list)
    spans: list[slice] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    column_names: list[str] = field(default_factory=list)
    query_names: list[str] = field(default_factory=list)

    @cached_property
    def matrix_plan(self) -> MatrixPlan | None:
        """The plan of the group's features in the matrix; None if it has none there."""
        if not self.matrix_names:
            return None
        return MatrixPlan(self.group.current, tuple(self.matrix_names))


@dataclass(frozen=True, slots=True)
class Plan:
    """The reads that answer a query, one per group, and the number of columns of its matrix."""

    groups: tuple[GroupRead, ...]
    width: int


class Schemas:
    """One catalog revision, and the plans of queries on it."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self._plans: dict[tuple[str, tuple[str, ...], tuple[str, ...]], Plan] = {}

    def group(self, name: str) -> FeatureGroup | None:
        """Return the feature group with the full name `name`, or None if there is none."""
        return self.catalog.groups.get(name)

    def plan(self, query: FeatureQuery) -> Plan:
        """Return the plan of a query, which is kept for later queries of the same features.

        Raise `Unknown` if the entity or a feature does not exist.
        """
        selection = (query.entity, query.matrix, query.columns)
        plan = self._plans.get(selection)
        if plan is None:
            if len(self._plans) >= MAX_PLANS:
                self._plans.clear()
            plan = self._plans[selection] = self._make_plan(*selection)
        return plan

    def _make_plan(self, entity: str, matrix: Sequence[str], columns: Sequence[str]) -> Plan:
        # Raise `Unknown` for an unknown entity even if the query has no features.
        self.catalog.entity(entity)
        reads: dict[str, GroupRead] = {}
        width = 0
        for position, name in enumerate(matrix):
            group, feature = self.catalog.feature(f"{entity}.{name}")
            read = reads.setdefault(group.name, GroupRead(group))
            read.matrix_names.append(feature.name)
            read.spans.append(slice(width, width + feature.size))
            read.positions.append(position)
            width += feature.size
        for name in columns:
            group, feature = self.catalog.feature(f"{entity}.{name}")
            read = reads.setdefault(group.name, GroupRead(group))
            read.column_names.append(feature.name)
            read.query_names.append(name)
        return Plan(tuple(reads.values()), width)
