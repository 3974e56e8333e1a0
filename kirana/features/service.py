"""Reads and writes of features in one store. `kirana.features.source` has the interface."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import repeat

import numpy as np

from kirana.catalog.revisions import CatalogSource, Revisions
from kirana.clock import FUTURE, MAX_FUTURE_MS
from kirana.codecs import CODECS, Rows
from kirana.errors import Conflict, InvalidInput, KiranaError, Unavailable, shortened
from kirana.features.assembly import assemble, decode
from kirana.features.bounded_reads import text_bytes
from kirana.features.cache import FeatureCache
from kirana.features.event_times import check_event_times
from kirana.features.fetch import Fetched, Fetcher
from kirana.features.plans import Plan, Schemas
from kirana.features.source import EntityRows, FeatureQuery, FeatureWrite, WriteResult
from kirana.features.tombstones import tombstones
from kirana.loop import INLINE_BYTES, INLINE_CELLS, inline_or_thread
from kirana.metrics import Counter, Metrics
from kirana.request import RequestContext
from kirana.revision import NO_REVISION, Revision
from kirana.schema import Array, FeatureGroup
from kirana.service import Health
from kirana.stores import FeatureStore, RowBlock, RowKeys, Written

logger = logging.getLogger(__name__)

UNAVAILABLE = Counter(
    "kirana_feature_rows_unavailable", "Rows of features that could not be read.", ()
)

MAX_MISSING_VERSIONS = 10_000
"""How many schema versions are remembered as missing. Beyond this, all are looked up again."""


class FeatureService:
    """`FeatureSource` and `FeatureSink` over one feature store.

    If some rows can't be read, reads return defaults for these rows, with the status `UNAVAILABLE`.
    With `fail_when_unavailable`, reads raise `Unavailable` instead.
    """

    def __init__(
        self,
        store: FeatureStore,
        source: CatalogSource,
        *,
        cache: FeatureCache | None = None,
        fail_when_unavailable: bool = False,
        metrics: Metrics | None = None,
    ) -> None:
        self._store = store
        self._metrics = metrics or Metrics()
        self._cache = cache
        self._fetcher = Fetcher(store, cache)
        self._fail_when_unavailable = fail_when_unavailable
        self._source = source
        self._schemas = Revisions(source, Schemas)
        self._missing_versions: set[tuple[str, str, int]] = set()
        """Schema versions (catalog, group, number) that the newest revision did not have."""
        self._newest = NO_REVISION
        """The newest revision, as of its last look-up. `NO_REVISION` before the first one."""

    async def prepare(self, revision: Revision) -> None:
        """Load a revision. Raise `Unavailable` if it can't be read."""
        await self._schemas.at(revision)

    async def read(
        self, queries: Sequence[FeatureQuery], context: RequestContext
    ) -> list[EntityRows]:
        """Answer all queries: concurrently, or one after another if the store is embedded.

        Large answers are decoded and assembled in a thread. Raise `Unknown` if an entity or a
        feature does not exist, and `TooLarge` if the rows of a query have too many bytes. Raise
        `Unavailable` if the revision can't be read, or if some rows can't be read and
        `fail_when_unavailable` is set.
        """
        schemas = await self._schemas.of(context)
        plans = [schemas.plan(query) for query in queries]
        if len(plans) == 1 or self._store.embedded:
            return [
                await self._read(query, plan, context)
                for query, plan in zip(queries, plans, strict=True)
            ]
        # The round trips of concurrent reads to the store overlap.
        reads = map(self._read, queries, plans, repeat(context))
        return [*await asyncio.gather(*reads)]

    async def _read(self, query: FeatureQuery, plan: Plan, context: RequestContext) -> EntityRows:
        keys = query.keys
        groups = [read.group for read in plan.groups]
        fetched = await self._fetcher.fetch(groups, keys)
        for group_values in fetched:
            if group_values.unavailable is not None:
                self._metrics.add(UNAVAILABLE, len(group_values.unavailable))
                if self._fail_when_unavailable:
                    raise Unavailable(group_values.reason or "the feature store does not answer")
        small = len(keys) * max(plan.width, len(query.columns)) <= INLINE_CELLS
        pieces = [group_values.pieces for group_values in fetched]
        inline = small and text_bytes(groups, pieces) <= INLINE_BYTES
        if not inline:
            # The event loop may change the table of the cache while the thread reads the rows.
            for group_values in fetched:
                group_values.detach()
        decoded = await inline_or_thread(inline, decode, plan, fetched, context.now_ms)
        for position, (read, rows) in enumerate(zip(plan.groups, decoded, strict=True)):
            if rows.unknown_versions:
                decoded[position] = await self._decode_newer(
                    read.group, rows, fetched[position], context
                )
        return await inline_or_thread(
            inline, assemble, query, plan, decoded, fetched, context.now_ms
        )

    async def _decode_newer(
        self, group: FeatureGroup, rows: Rows, fetched: Fetched, context: RequestContext
    ) -> Rows:
        """Decode rows again, with the schema versions of the newest revision.

        Writers may already use schema versions that are newer than the request's revision. Return
        `rows` itself if no newer schema versions of the group are found.
        """
        catalog = context.revision.catalog
        unknown = {(catalog, group.name, number) for number in rows.unknown_versions}
        unknown -= self._missing_versions
        if not unknown:
            return rows
        try:
            newest_version = max(number for *_, number in unknown)
            newest_group = await self._newest_group(group.name, newest_version, catalog)
        except (KiranaError, OSError):
            # The newest revision can't be read now, so these rows keep their defaults.
            return rows
        version_count = 0 if newest_group is None else len(newest_group.versions)
        if len(self._missing_versions) > MAX_MISSING_VERSIONS:
            self._missing_versions.clear()
        self._missing_versions |= {version for version in unknown if version[2] > version_count}
        if newest_group is None or version_count <= len(group.versions):
            return rows
        return fetched.decode(_with_current_of(newest_group, group), context.now_ms / 1000)

    async def _newest_group(self, name: str, version: int, catalog: str) -> FeatureGroup | None:
        """Return a group of the newest revision, or None if that revision lacks the group.

        Use the revision of the last look-up if it has the schema version `version` of the group.
        Otherwise look up the newest revision again. Return None if it is not a revision of
        `catalog`. Schema versions of a different catalog do not describe the rows, even if their
        numbers match.
        """
        group = None
        if self._newest.catalog == catalog:
            group = (await self._schemas.at(self._newest)).group(name)
        if group is None or len(group.versions) < version:
            self._newest = await asyncio.to_thread(self._source.current)
            if self._newest.catalog != catalog:
                return None
            group = (await self._schemas.at(self._newest)).group(name)
        return group

    async def write(self, write: FeatureWrite, context: RequestContext) -> WriteResult:
        """Store rows. Large writes are encoded in a thread.

        Raise `InvalidInput` if the schema version does not exist, one of its features is missing or
        an event time is too far in the future, `TooLarge` if a row has too many bytes, `Unknown`
        for an unknown group or feature, and `Unavailable` if the revision can't be read or not all
        rows could be stored.
        """
        block = await self._encoded(write, context)
        expired = block.expired(context.now_ms / 1000)
        if not expired.any():
            return _result_of(await self._put(block, write.keys))
        # Expired rows are stored too, because they must replace older rows.
        expired_rows, live_rows = np.flatnonzero(expired), np.flatnonzero(~expired)
        await self._put(block.select(expired_rows), [write.keys[i] for i in expired_rows.tolist()])
        written = await self._put(
            block.select(live_rows), [write.keys[i] for i in live_rows.tolist()]
        )
        return replace(_result_of(written), expired=len(expired_rows))

    async def check_write(self, write: FeatureWrite, context: RequestContext) -> None:
        """Raise what `write` would raise for these rows. Store nothing."""
        await self._encoded(write, context)

    async def _encoded(self, write: FeatureWrite, context: RequestContext) -> RowBlock:
        """Return rows as they are stored. The errors are those of `write`."""
        schemas = await self._schemas.of(context)
        group = schemas.catalog.group(write.group, field="group")
        version = group.version_or_current(write.schema_version)
        for feature in version.features:
            if feature.name not in write.columns:
                raise InvalidInput(
                    f"'{feature.name}' is missing: a write must have every feature of "
                    f"'{group.name}' version {version.number}",
                    field=f"columns.{feature.name}",
                )
        for name in write.columns:
            version.feature(name, field=f"columns.{name}")
        check_event_times(write.event_time_ms, context.now_ms)
        codec = CODECS[group.codec]
        inline = len(write.keys) * len(version.features) <= INLINE_CELLS
        values = await inline_or_thread(
            inline, codec.encode, group, version, write.columns, write.event_time_ms
        )
        times = write.event_time_ms
        return RowBlock.joined(group.name, codec, write.keys, values, group.expiry_s(times), times)

    async def delete(
        self,
        group: str,
        keys: Sequence[str],
        event_time_ms: Array,
        force: bool,
        context: RequestContext,
    ) -> WriteResult:
        """Store tombstones, which expire after `kirana.features.tombstones.TOMBSTONE_S` seconds.

        With `force`, rows from clocks that are ahead are removed instead, without a trace.

        Raise `Unknown` for an unknown group, `InvalidInput` if an event time is too far in the
        future, `Conflict` if a row can't be removed without a trace, and `Unavailable` if the
        revision can't be read or not all rows could be deleted.
        """
        schemas = await self._schemas.of(context)
        feature_group = schemas.catalog.group(group, field="group")
        check_event_times(event_time_ms, context.now_ms)
        removed = 0
        if force:
            kept = await self._remove_future_rows(feature_group, keys, context.now_ms)
            removed = len(keys) - len(kept)
            keys, event_time_ms = [keys[position] for position in kept], event_time_ms[kept]
            if not keys:
                return WriteResult(removed, 0)
        times = event_time_ms.astype(np.uint64)
        block = tombstones(feature_group, keys, times, context.now_ms // 1000)
        result = _result_of(await self._put(block, keys))
        return replace(result, written=result.written + removed)

    async def _remove_future_rows(
        self, group: FeatureGroup, keys: Sequence[str], now_ms: int
    ) -> list[int]:
        """Remove rows that are too far in the future. Return the positions of all other keys."""
        codec = CODECS[group.codec]
        (stored,) = await self._store.read([RowKeys(group.name, keys)])
        if stored.unavailable is not None:
            raise Unavailable(stored.reason)
        latest_ms = now_ms + MAX_FUTURE_MS
        ahead = {
            position
            for position, value in enumerate(stored.values)
            if value is not None and codec.write_order(value)[0] > latest_ms
        }
        if ahead and not self._store.forgets:
            raise Conflict(
                f"{len(ahead)} rows are {FUTURE}, and Cassandra can't forget them: a delete would "
                "hide later writes of these keys for days. See 'Rows from the future' in "
                "docs/operations.md",
                field="force",
            )
        if ahead:
            future_keys = [keys[position] for position in sorted(ahead)]
            logger.warning(
                "removing %d rows of %s that are %s: %s",
                *(len(ahead), group.name, FUTURE, shortened(", ".join(future_keys))),
            )
            try:
                await self._store.remove(RowKeys(group.name, future_keys))
            finally:
                self._fetcher.invalidate(group.name, future_keys)
        return [position for position in range(len(keys)) if position not in ahead]

    async def _put(self, block: RowBlock, keys: Sequence[str]) -> Written:
        """Write a block to the store, and remove the rows of its `keys` from the cache."""
        try:
            return await self._store.write(block)
        finally:
            # Even if the write failed, some rows may have been stored.
            self._fetcher.invalidate(block.group, keys)

    async def health(self, revision: Revision) -> Health:
        """Check that the store answers and that the revision can be read.

        The details are those of the store and, if there is a cache, its counters and its size.
        """
        # A read might find its rows in the cache, and not reach the store.
        reachable = await self._store.ping()
        details = dict(self._store.health())
        if self._cache is not None:
            details["cache"] = {**asdict(self._cache.counts), "bytes": self._cache.nbytes}
        if not reachable:
            return Health("the feature store does not answer", details)
        if "clock" in details:
            return Health(details["clock"], details)
        try:
            await self.prepare(revision)
        except Unavailable as error:
            return Health(error.message, details)
        return Health(None, details)

    async def close(self) -> None:
        """Close the store."""
        await self._store.close()


def _result_of(written: Written) -> WriteResult:
    """Return the counts of a write. Rows of unknown outcome (stored or stale) count as written."""
    return WriteResult(written.stored + written.unknown, written.stale)


def _with_current_of(newest: FeatureGroup, pinned: FeatureGroup) -> FeatureGroup:
    """Return `newest` with the current version of `pinned` added as its current version.

    With this group, rows of all schema versions of `newest` can be decoded. The decoded rows have
    the features of `pinned`.
    """
    return replace(newest, versions=(*newest.versions, pinned.current))
