"""The read and the write path over one store. `kirana.features.source` has the contract."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from itertools import repeat

import numpy as np
import numpy.typing as npt

from kirana.catalog.revisions import CatalogSource, Revisions
from kirana.catalog.snapshot import Catalog
from kirana.clock import MAX_FUTURE_MS
from kirana.codecs import CODECS, Column, Rows, Status
from kirana.codecs.rows import MatrixPlan, Provenance, Tier
from kirana.errors import InvalidInput, KiranaError, Unavailable
from kirana.features.cache import FeatureCache
from kirana.features.fetch import Fetched, Fetcher
from kirana.features.source import EntityRows, FeatureQuery, FeatureWrite, WriteResult
from kirana.loop import INLINE_CELLS, inline_or_thread
from kirana.request import RequestContext
from kirana.revision import NO_REVISION, Revision
from kirana.schema import Array, FeatureGroup
from kirana.service import Health
from kirana.stores import FeatureStore, RowBlock, Written

MAX_PLANS = 512
"""Clients choose what they read; an inferflow's plans are made anew if theirs crowd them out."""

TOMBSTONE_S = 8 * 86_400
"""How long a delete is remembered: longer than a topic's usual retention of seven days."""


@dataclass
class _GroupRead:
    """What a query wants of one group, by the newest names of its features.

    `spans` are where the features of its matrix go in the query's, `positions` which ones of
    the query they are; `asked` are the names of the columns in the query.
    """

    group: FeatureGroup
    names: list[str] = field(default_factory=list)
    spans: list[slice] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    columns: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    @cached_property
    def matrix(self) -> MatrixPlan | None:
        return MatrixPlan(self.group.current, tuple(self.names)) if self.names else None


@dataclass(frozen=True, slots=True)
class _Plan:
    groups: tuple[_GroupRead, ...]
    width: int


class Schemas:
    """A revision of the catalog as the read path wants it: plans by query, made once."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self._plans: dict[tuple[str, tuple[str, ...], tuple[str, ...]], _Plan] = {}

    def group(self, name: str) -> FeatureGroup | None:
        return self.catalog.groups.get(name)

    def plan(self, query: FeatureQuery) -> _Plan:
        shape = (query.entity, query.matrix, query.columns)
        found = self._plans.get(shape)
        if found is None:
            if len(self._plans) >= MAX_PLANS:
                self._plans.clear()
            found = self._plans[shape] = self._make_plan(*shape)
        return found

    def _make_plan(self, entity: str, matrix: Sequence[str], columns: Sequence[str]) -> _Plan:
        self.catalog.entity(entity)
        found: dict[str, _GroupRead] = {}
        width = 0
        for position, name in enumerate(matrix):
            group, feature = self.catalog.feature(f"{entity}.{name}")
            wanted = found.setdefault(group.name, _GroupRead(group))
            wanted.names.append(feature.name)
            wanted.spans.append(slice(width, width + feature.size))
            wanted.positions.append(position)
            width += feature.size
        for name in columns:
            group, feature = self.catalog.feature(f"{entity}.{name}")
            wanted = found.setdefault(group.name, _GroupRead(group))
            wanted.columns.append(feature.name)
            wanted.asked.append(name)
        return _Plan(tuple(found.values()), width)


class FeatureService:
    """Implements `FeatureSource` and `FeatureSink` over a store."""

    def __init__(
        self,
        store: FeatureStore,
        source: CatalogSource,
        *,
        cache: FeatureCache | None = None,
        fail_when_unavailable: bool = False,
    ) -> None:
        """With `fail_when_unavailable`, a read of a store that does not answer raises
        `Unavailable`; without it, rows have defaults and the status.
        """
        self._store = store
        self._cache = cache
        self._fetcher = Fetcher(store, cache)
        self._fail_when_unavailable = fail_when_unavailable
        self._source = source
        self._schemas = Revisions(source, Schemas)
        self._nowhere: set[tuple[str, str, int]] = set()
        self._newest = NO_REVISION

    async def prepare(self, revision: Revision) -> None:
        await self._schemas.at(revision)

    async def read(
        self, queries: Sequence[FeatureQuery], context: RequestContext
    ) -> list[EntityRows]:
        schemas = await self._schemas.at(context.revision)
        plans = [schemas.plan(query) for query in queries]
        if len(plans) == 1 or self._store.embedded:
            return [
                await self._read(query, plan, context)
                for query, plan in zip(queries, plans, strict=True)
            ]
        # all at once: one round trip
        reads = map(self._read, queries, plans, repeat(context))
        return [*await asyncio.gather(*reads)]

    async def _read(self, query: FeatureQuery, plan: _Plan, context: RequestContext) -> EntityRows:
        keys = query.keys
        fetched = await self._fetcher.fetch([read.group for read in plan.groups], keys)
        if self._fail_when_unavailable:
            for each in fetched:
                if each.unavailable is not None:
                    raise Unavailable(each.reason or "the feature store does not answer")
        inline = len(keys) * max(plan.width, len(query.columns)) <= INLINE_CELLS
        if not inline:
            # the cache's table may change under another thread
            for each in fetched:
                each.keep()
        decoded = await inline_or_thread(inline, _decode, plan, fetched, context.now_ms)
        for at, (read, rows) in enumerate(zip(plan.groups, decoded, strict=True)):
            if rows.unknown_versions:
                decoded[at] = await self._look_once(read.group, rows, fetched[at], context)
        return await inline_or_thread(
            inline, _assemble, query, plan, decoded, fetched, context.now_ms
        )

    async def _look_once(
        self, group: FeatureGroup, rows: Rows, fetched: Fetched, context: RequestContext
    ) -> Rows:
        """Rows may follow a schema version that is newer than the request's revision."""
        catalog = context.revision.catalog
        unknown = {(catalog, group.name, number) for number in rows.unknown_versions}
        unknown -= self._nowhere
        if not unknown:
            return rows
        try:
            newest = max(number for *_, number in unknown)
            fresh = await self._newest_group(group.name, newest, catalog)
        except (KiranaError, OSError):
            # no newer revision can be had now: the rows are what they are to this one
            return rows
        known = 0 if fresh is None else len(fresh.versions)
        self._nowhere |= {each for each in unknown if each[2] > known}
        if fresh is None or known <= len(group.versions):
            return rows
        return fetched.decode(_as_of(fresh, group), context.now_ms / 1000)

    async def _newest_group(self, name: str, version: int, catalog: str) -> FeatureGroup | None:
        """Return the group as of the newest revision; asked for again if it lacks the version.

        The versions of another catalog, after one was lost, say nothing about a row.
        """
        fresh = None
        if self._newest.catalog == catalog:
            fresh = (await self._schemas.at(self._newest)).group(name)
        if fresh is None or len(fresh.versions) < version:
            self._newest = await asyncio.to_thread(self._source.current)
            if self._newest.catalog != catalog:
                return None
            fresh = (await self._schemas.at(self._newest)).group(name)
        return fresh

    async def write(self, write: FeatureWrite, context: RequestContext) -> WriteResult:
        schemas = await self._schemas.at(context.revision)
        group = schemas.catalog.group(write.group, field="group")
        version = group.version(write.schema_version) if write.schema_version else group.current
        for feature in version.features:
            if feature.name not in write.columns:
                raise InvalidInput(
                    f"a group is written whole: '{group.name}' version {version.number} "
                    f"needs '{feature.name}'",
                    field=f"columns.{feature.name}",
                )
        for name in write.columns:
            version.feature(name, field=f"columns.{name}")
        _check_times(write.event_time_ms, context.now_ms)
        codec = CODECS[group.codec]
        inline = len(write.keys) * len(version.features) <= INLINE_CELLS
        values = await inline_or_thread(
            inline, codec.encode, group, version, write.columns, write.event_time_ms
        )
        times = write.event_time_ms
        expiry_s = group.expiry_s(times)
        block = RowBlock.joined(group.name, codec, write.keys, values, expiry_s, times)
        expired = block.expired(context.now_ms / 1000)
        if not expired.any():
            return _result_of(await self._put(block, write.keys))
        # they are under the law of order too, so they go into the store as well
        gone, lives = np.flatnonzero(expired), np.flatnonzero(~expired)
        await self._put(block.take(gone), [write.keys[at] for at in gone.tolist()])
        done = await self._put(block.take(lives), [write.keys[at] for at in lives.tolist()])
        return replace(_result_of(done), expired=len(gone))

    async def delete(
        self, group: str, keys: Sequence[str], event_time_ms: Array, context: RequestContext
    ) -> WriteResult:
        schemas = await self._schemas.at(context.revision)
        found = schemas.catalog.group(group, field="group")
        _check_times(event_time_ms, context.now_ms)
        codec, times = CODECS[found.codec], event_time_ms.astype(np.uint64)
        forgotten_at = context.now_ms // 1000 + TOMBSTONE_S
        values = codec.tombstones(times, forgotten_at)
        expiry_s = np.full(len(times), forgotten_at, dtype=np.uint32)
        block = RowBlock.joined(group, codec, keys, values, expiry_s, times, deleted=True)
        return _result_of(await self._put(block, keys))

    async def _put(self, block: RowBlock, keys: Sequence[str]) -> Written:
        try:
            return await self._store.write(block)
        finally:
            # also of a write that failed: some of it may have arrived
            self._fetcher.written(block.group, keys)

    async def health(self, revision: Revision) -> Health:
        # past the cache, which may know that there is no such row
        answers = await self._store.ping()
        told = dict(self._store.health())
        if self._cache is not None:
            told["cache"] = {**asdict(self._cache.counts), "bytes": self._cache.nbytes}
        if not answers:
            return Health("the feature store does not answer", told)
        try:
            await self.prepare(revision)
        except Unavailable as error:
            return Health(error.message, told)
        return Health(None, told)

    async def close(self) -> None:
        await self._store.close()


def _result_of(done: Written) -> WriteResult:
    return WriteResult(done.stored + done.unknown, done.stale)


def _decode(plan: _Plan, fetched: Sequence[Fetched], now_ms: int) -> list[Rows]:
    return [
        each.decode(read.group, now_ms / 1000)
        for read, each in zip(plan.groups, fetched, strict=True)
    ]


def _assemble(
    query: FeatureQuery,
    plan: _Plan,
    decoded: Sequence[Rows],
    fetched: Sequence[Fetched],
    now_ms: int,
) -> EntityRows:
    count = len(query.keys)
    matrix = None
    if len(plan.groups) == 1 and plan.groups[0].matrix is not None:
        # as it is stored, if all of its rows are there
        matrix = decoded[0].view(plan.groups[0].matrix)
    filled_here = matrix is None
    if matrix is None:
        matrix = np.empty((count, plan.width), dtype=np.float32)
    columns: dict[str, Column] = {}
    status: dict[str, Array] = {}
    age: dict[str, Array] = {}
    provenance: dict[str, Array] = {}
    tier: dict[str, Array] = {}
    for read, rows, found in zip(plan.groups, decoded, fetched, strict=True):
        short = read.group.short_name
        status[short] = rows.status
        if read.matrix is not None and filled_here:
            _fill(matrix, read.matrix, read.spans, rows)
        for name, asked in zip(read.columns, read.asked, strict=True):
            columns[asked] = rows.column(name)
            if query.provenance:
                provenance[asked] = rows.provenance(name)
        if query.provenance:
            times = rows.event_time_ms.astype(np.int64)
            there = (rows.status == Status.OK) | (rows.status == Status.EXPIRED)
            age[short] = np.where(there, now_ms - times, -1)
            tier[short] = np.where(there, found.tiers(), np.uint8(Tier.NONE))
    nulls = _matrix_nulls(query, plan, decoded) if query.nulls else None
    return EntityRows(matrix, columns, status, age, provenance, nulls, tier)


def _check_times(event_time_ms: Array, now_ms: int) -> None:
    """Refuse event times that are further ahead than clocks differ."""
    late = np.flatnonzero(event_time_ms > now_ms + MAX_FUTURE_MS)
    if len(late):
        raise InvalidInput(
            f"{event_time_ms[late[0]]} is more than five minutes ahead",
            field=("event_time", int(late[0])),
        )


def _fill(matrix: Array, plan: MatrixPlan, spans: Sequence[slice], rows: Rows) -> None:
    """Write a group's features to their spans, in one go where they stand side by side."""
    first, last = spans[0], spans[-1]
    width = sum(plan.sizes)
    if last.stop - first.start == width:
        rows.fill(matrix[:, first.start : last.stop], plan)
        return
    block = np.empty((len(matrix), width), dtype=np.float32)
    rows.fill(block, plan)
    at = 0
    for span, size in zip(spans, plan.sizes, strict=True):
        matrix[:, span] = block[:, at : at + size]
        at += size


def _matrix_nulls(
    query: FeatureQuery, plan: _Plan, decoded: Sequence[Rows]
) -> npt.NDArray[np.bool_] | None:
    if not any(rows.any_nulls for rows in decoded):
        return None
    nulls = np.zeros((len(query.keys), len(query.matrix)), dtype=np.bool_)
    for read, rows in zip(plan.groups, decoded, strict=True):
        for name, position in zip(read.names, read.positions, strict=True):
            nulls[:, position] = rows.provenance(name) == Provenance.NULL
    return nulls


def _as_of(fresh: FeatureGroup, pinned: FeatureGroup) -> FeatureGroup:
    """Know the newer versions' bytes, but answer as the pinned revision's newest version does."""
    return replace(fresh, versions=(*fresh.versions, pinned.current))
