"""A feature group whose schema changes, with its writers and readers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kirana.catalog.directory import DirectoryCatalog
from kirana.codecs.rows import PROVENANCE_NAMES, STATUS_NAMES
from kirana.features import EntityRows, FeatureQuery
from kirana.features.cache.feature_cache import FeatureCache
from kirana.features.service import FeatureService
from kirana.features.source import FeatureWrite, WriteResult
from kirana.features.values import columns_of
from kirana.request import RequestContext
from kirana.revision import Revision
from kirana.stores.memory import MemoryFeatureStore
from tests.support import nth

NOW_MS = 1_700_000_000_000
GROUP = "product.stats"

Cell = tuple[Any, str]
"""A value, and the name of its provenance."""


def stored(value: Any) -> Cell:
    return (value, "stored")


def null(default: Any) -> Cell:
    return (default, "null")


def not_in_version(default: Any) -> Cell:
    return (default, "not_in_version")


def no_row(default: Any) -> Cell:
    return (default, "no_row")


@dataclass(frozen=True)
class Answer:
    """The rows of one read: a status and an age per key, and for each feature a cell per key."""

    status: list[str]
    cells: dict[str, list[Cell]]
    age_ms: list[int]


class CountedCatalog(DirectoryCatalog):
    """A catalog that counts in `current_calls` how often its current revision was read."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.current_calls = 0

    def current(self) -> Revision:
        self.current_calls += 1
        return super().current()


class World:
    """A catalog, a store, and two services over them: one with a cache and one without."""

    def __init__(self, folder: Path, codec: str) -> None:
        folder.mkdir(parents=True)
        self.codec = codec
        self.catalog = CountedCatalog(folder)
        self.store = MemoryFeatureStore()
        self.now_ms = NOW_MS
        self.plain = self.service()
        self.cached = self.service(FeatureCache(1 << 20, 3_600.0))

    def service(self, cache: FeatureCache | None = None) -> FeatureService:
        """Return another service over the same store and catalog."""
        return FeatureService(self.store, self.catalog, cache=cache)

    def publish(self, *features: str, ttl: str = "7d", group: str = GROUP) -> int:
        """Publish the group with these features; return the number of the revision."""
        lines = "".join(f"  - {{{feature}}}\n" for feature in features)
        (self.catalog.folder / "product.yaml").write_text(
            "kind: entity\nname: product\nkeys: [{name: product_id}]\n"
        )
        (self.catalog.folder / f"{group}.yaml").write_text(
            f"kind: feature_group\nname: {group}\nttl: {ttl}\ncodec: {self.codec}\n"
            f"features:\n{lines}"
        )
        return self.catalog.publish().revision.number

    async def write(
        self,
        rows: Mapping[str, Mapping[str, Any]],
        *,
        revision: int,
        version: int = 0,
        at_ms: int | None = None,
        group: str = GROUP,
    ) -> WriteResult:
        """Write rows by key through the service with the cache.

        Features that the schema version lacks are passed on too, and the service refuses them.
        """
        pinned = nth(self.catalog, revision)
        feature_group = self.catalog.load(pinned).groups[group]
        schema = feature_group.version(version) if version else feature_group.current
        names = list(next(iter(rows.values())))
        lists = {name: [row[name] for row in rows.values()] for name in names}
        known = {name: values for name, values in lists.items() if name in schema.index}
        columns: dict[str, Any] = {**lists}
        if known:
            columns |= columns_of(schema, known, len(rows))
        times = np.full(len(rows), self.now_ms if at_ms is None else at_ms, dtype=np.uint64)
        write = FeatureWrite(group, [*rows], columns, times, version)
        return await self.cached.write(write, RequestContext.begin(pinned, now_ms=self.now_ms))

    async def read(self, keys: Sequence[str], *names: str, revision: int) -> Answer:
        """Read the features as columns, and those that are not strings as a matrix too.

        Assert that three reads return the same: one without a cache, and two with the cache.
        """
        answers = [
            await self._read(service, keys, names, nth(self.catalog, revision))
            for service in (self.plain, self.cached, self.cached)
        ]
        assert answers[0] == answers[1] == answers[2]
        return answers[0]

    async def _read(
        self,
        service: FeatureService,
        keys: Sequence[str],
        names: tuple[str, ...],
        revision: Revision,
    ) -> Answer:
        catalog = self.catalog.load(revision)
        numeric = tuple(
            name for name in names if catalog.feature(f"product.{name}")[1].dtype != "string"
        )
        query = FeatureQuery("product", keys, numeric, names, provenance=True, nulls=True)
        (rows,) = await service.read([query], RequestContext.begin(revision, now_ms=self.now_ms))
        assert_matrix_agrees(rows, numeric)
        cells = {name: cells_of(rows, name) for name in names}
        group = names[0].partition(".")[0]
        status = [STATUS_NAMES[code] for code in rows.status[group].tolist()]
        return Answer(status, cells, rows.age_ms[group].tolist())


def cells_of(rows: EntityRows, name: str) -> list[Cell]:
    values = rows.columns[name].values.tolist()
    codes = [PROVENANCE_NAMES[code] for code in rows.provenance[name].tolist()]
    return list(zip(values, codes, strict=True))


def assert_matrix_agrees(rows: EntityRows, names: Sequence[str]) -> None:
    """Assert that the matrix has the values and the nulls of the columns."""
    start = 0
    for position, name in enumerate(names):
        block = rows.columns[name].values
        block = block.reshape(len(block), -1).astype(np.float32)
        np.testing.assert_array_equal(rows.matrix[:, start : start + block.shape[1]], block)
        start += block.shape[1]
        codes = [PROVENANCE_NAMES[code] for code in rows.provenance[name].tolist()]
        nulls = [code == "null" for code in codes]
        reported = [False] * len(nulls)
        if rows.matrix_nulls is not None:
            reported = rows.matrix_nulls[:, position].tolist()
        assert reported == nulls
    assert rows.matrix.shape[1] == start
