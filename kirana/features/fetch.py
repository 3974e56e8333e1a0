"""Reads of stored rows from the cache and the store.

If there is a cache, concurrent calls share the reads of rows that are not cached.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter

import numpy as np
import numpy.typing as npt

from kirana import native
from kirana.codecs import CODECS, Rows, Status
from kirana.codecs.rows import Piece, Tier
from kirana.features.bounded_reads import BoundedReads, check_fixed_bytes, check_read_bytes
from kirana.features.cache import FeatureCache
from kirana.features.cache.reads import CacheRead
from kirana.schema import FeatureGroup
from kirana.stores import FeatureStore, RowKeys, StoredRows

Positions = npt.NDArray[np.intp]
_ALL_POSITIONS = slice(None)
_NO_POSITIONS: Positions = np.empty(0, dtype=np.intp)

_Row = tuple[bytes | None, int]
"""The value of a row, and the `Tier` that it was read from."""

_NO_ROW: _Row = (None, Tier.NONE)


@dataclass(slots=True)
class Fetched:
    """The stored values of one group for a batch of keys. All positions refer to this batch.

    `pieces` has the values, in the form that codecs decode. `unavailable` are the positions of rows
    that could not be read (None if all rows were read), and `reason` says why. The rows at `cached`
    come from the cache, and those at `from_store` from the store. `tier` is the tier of the rows at
    `from_store`: one `Tier` for all of these rows, or one per row.
    """

    count: int
    pieces: list[Piece] = field(default_factory=list)
    unavailable: Positions | None = None
    reason: str = ""
    cached: Positions | slice = field(default_factory=lambda: _NO_POSITIONS)
    from_store: Positions | slice = field(default_factory=lambda: _ALL_POSITIONS)
    tier: Tier | npt.NDArray[np.uint8] = Tier.DURABLE

    def detach(self) -> None:
        """Copy the rows that are still in the table of the cache.

        Call this before another thread reads the rows, because the event loop may change the table
        meanwhile.
        """
        for piece in self.pieces:
            if native.COMPILED and isinstance(piece.values, native.borrowed.Borrowed):
                piece.values.detach()

    def decode(self, group: FeatureGroup, now_s: float) -> Rows:
        """Return the decoded rows. `now_s` (Unix seconds) decides which rows have expired.

        Rows that could not be read have defaults and the status `UNAVAILABLE`.
        """
        rows = CODECS[group.codec].decode_pieces(self.count, self.pieces, group, now_s)
        if self.unavailable is not None:
            rows.status[self.unavailable] = Status.UNAVAILABLE
        return rows

    def tiers(self) -> npt.NDArray[np.uint8]:
        """Return the `Tier` of each row. The tier of a row that is not stored has no meaning."""
        tiers = np.zeros(self.count, dtype=np.uint8)
        tiers[self.from_store] = self.tier
        tiers[self.cached] = Tier.CACHE
        return tiers


class _PendingRead:
    """A read of the store that is under way.

    Other calls that need some of its rows wait for it instead of reading these rows again.
    `groups` and `wanted` have one entry per group. `began` is a time of the cache's clock.
    """

    def __init__(
        self, groups: Sequence[FeatureGroup], wanted: Sequence[RowKeys], began: float
    ) -> None:
        self.groups = groups
        self.wanted = wanted
        self.began = began
        self.written: dict[str, set[str]] = defaultdict(set)
        """The keys that were invalidated since the read began, by group. They are not cached."""
        self.indexed = False
        """Whether the read is in `Fetcher._pending_by_key`."""
        self.answers: Sequence[StoredRows] = ()
        """The result, one entry per group. Empty until the read ends, and if it fails."""
        self.ended = False
        self.end: asyncio.Future[None] | None = None
        """Done when the read ends. None unless a call has waited for it."""

    async def wait(self) -> bool:
        """Wait until the read ends; return False if it failed or was cancelled."""
        if not self.ended:
            if self.end is None:
                self.end = asyncio.get_running_loop().create_future()
            # If a waiting call is cancelled, the others must still be woken.
            await asyncio.shield(self.end)
        return bool(self.answers)

    def rows(self, group: str) -> dict[str, _Row]:
        """Return the rows of a group by key, without the unavailable ones."""
        position = next(i for i, rows in enumerate(self.wanted) if rows.group == group)
        return _rows_of(self.wanted[position].keys, self.answers[position])


class Fetcher:
    """Reads rows of several groups at once, at most `MAX_READ_BYTES` per call.

    If there is a cache, concurrent calls share the reads of rows that are not cached.
    """

    def __init__(self, store: FeatureStore, cache: FeatureCache | None) -> None:
        self._reads = BoundedReads(store)
        self._cache = cache
        self._pending: set[_PendingRead] = set()
        """The reads that are under way."""
        self._pending_by_key: dict[str, dict[str, _PendingRead]] = defaultdict(dict)
        """The reads that are under way, by group and key.

        Reads are added only when a call has to read rows while other reads are under way.
        """

    async def fetch(self, groups: Sequence[FeatureGroup], keys: Sequence[str]) -> list[Fetched]:
        """Return the stored values of `keys`, one `Fetched` per group.

        Rows that can't be read are `unavailable`. Nothing is raised for them. Raise `TooLarge` if
        the values have more than `MAX_READ_BYTES` in all.
        """
        if not keys:
            return [Fetched(0) for _ in groups]
        check_fixed_bytes(groups, len(keys))
        if self._cache is None:
            wanted = [RowKeys(group.name, keys) for group in groups]
            answers = await self._reads.read(groups, wanted)
            return [_from_store(len(keys), answer) for answer in answers]
        fetched = await self._fetch_with_cache(self._cache, groups, keys)
        check_read_bytes(groups, [group_values.pieces for group_values in fetched])
        return fetched

    async def _fetch_with_cache(
        self, cache: FeatureCache, groups: Sequence[FeatureGroup], keys: Sequence[str]
    ) -> list[Fetched]:
        reads = [cache.look_up(group, keys) for group in groups]
        missing = [_keys_at(keys, read.missing) for read in reads]
        if not any(missing):
            return [_join(len(keys), read) for read in reads]
        completed = await self._complete(cache, groups, missing)
        return [
            _join(len(keys), read, answer) for read, answer in zip(reads, completed, strict=True)
        ]

    async def _complete(
        self, cache: FeatureCache, groups: Sequence[FeatureGroup], missing: Sequence[Sequence[str]]
    ) -> Sequence[StoredRows]:
        """Read the rows that are not cached, and wait for those that are being read already.

        `missing` has the keys of these rows, one sequence per group. Return one answer per group,
        with one value per key.
        """
        under_way = [
            self._pending_reads_of(cache, group.name, keys)
            for group, keys in zip(groups, missing, strict=True)
        ]
        if not any(under_way):
            return await self._read_store(cache, groups, missing)
        own_keys = [
            [key for key in keys if key not in reads]
            for keys, reads in zip(missing, under_way, strict=True)
        ]
        own_answers = await self._read_store(cache, groups, own_keys) if any(own_keys) else None
        succeeded = {
            read: await read.wait() for read in {r for reads in under_way for r in reads.values()}
        }
        if not all(succeeded.values()):
            # One of the reads that this call waited for has failed or was cancelled.
            return await self._complete(cache, groups, missing)
        answers = []
        for position, (group, keys, reads) in enumerate(
            zip(groups, missing, under_way, strict=True)
        ):
            # Several reads may include a key. The row comes from the read that `reads` has for the
            # key.
            rows_of = {read: read.rows(group.name) for read in set(reads.values())}
            rows = {key: rows_of[read][key] for key, read in reads.items() if key in rows_of[read]}
            reasons = [answer.reason for read in rows_of for answer in read.answers]
            if own_answers is not None:
                rows |= _rows_of(own_keys[position], own_answers[position])
                reasons.append(own_answers[position].reason)
            answers.append(_by_key(keys, rows, max(reasons, key=len, default="")))
        return answers

    async def _read_store(
        self, cache: FeatureCache, groups: Sequence[FeatureGroup], missing: Sequence[Sequence[str]]
    ) -> Sequence[StoredRows]:
        """Read rows from the store, and cache them."""
        wanted = [RowKeys(group.name, keys) for group, keys in zip(groups, missing, strict=True)]
        began = cache.now()
        read = _PendingRead(groups, wanted, began)
        self._pending.add(read)
        try:
            read.answers = answers = await self._reads.read(groups, wanted)
            for position in range(len(wanted)):
                self._fill_cache(cache, read, position, began)
            return answers
        finally:
            self._finish(read)

    @staticmethod
    def _fill_cache(cache: FeatureCache, read: _PendingRead, number: int, began: float) -> None:
        """Cache the rows of the group `read.groups[number]`.

        Rows that are unavailable, or were invalidated since the read began, are left out.
        """
        group, keys, answer = read.groups[number], read.wanted[number].keys, read.answers[number]
        if not keys:
            return
        written = read.written.get(group.name)
        if answer.unavailable is None and not written:
            cache.fill(group, keys, answer.values, since=began)
            return
        unavailable = set() if answer.unavailable is None else {*answer.unavailable.tolist()}
        kept = [
            position
            for position, key in enumerate(keys)
            if position not in unavailable and not (written and key in written)
        ]
        if kept:
            values = [answer.values[position] for position in kept]
            cache.fill(group, [keys[position] for position in kept], values, since=began)

    def _pending_reads_of(
        self, cache: FeatureCache, group: str, keys: Sequence[str]
    ) -> dict[str, _PendingRead]:
        """Return the read under way for each of `keys`, without the keys that no read includes.

        Reads that began so long ago that their rows would not be fresh are left out.
        """
        if not self._pending:
            return {}
        for read in self._pending:
            if not read.indexed:
                read.indexed = True
                for rows in read.wanted:
                    written = read.written.get(rows.group, ())
                    unwritten_keys = [key for key in rows.keys if key not in written]
                    self._pending_by_key[rows.group].update(dict.fromkeys(unwritten_keys, read))
        read_of = self._pending_by_key[group]
        if read_of.keys().isdisjoint(keys):
            return {}
        oldest = cache.now() - cache.fresh_s
        shared = {key: read_of[key] for key in keys if key in read_of}
        return {key: pending for key, pending in shared.items() if pending.began > oldest}

    def _finish(self, read: _PendingRead) -> None:
        """End a read: wake the calls that wait for it, and remove it from the reads under way."""
        self._pending.discard(read)
        read.ended = True
        if read.end is not None:
            read.end.set_result(None)
        if not read.indexed:
            return
        if not self._pending:
            self._pending_by_key.clear()
            return
        for rows in read.wanted:
            read_of = self._pending_by_key[rows.group]
            for key in rows.keys:
                # A newer read may have replaced this one, for example because the key was written.
                if read_of.get(key) is read:
                    del read_of[key]

    def invalidate(self, group: str, keys: Sequence[str]) -> None:
        """Remove rows from the cache, after they were written. No-op without a cache.

        If a read of these rows is under way, later calls do not wait for it, and the rows that it
        returns are not cached.
        """
        if self._cache is None:
            return
        self._cache.forget(group, keys)
        for read in self._pending:
            read.written[group].update(keys)
        read_of = self._pending_by_key[group]
        for key in keys if read_of else ():
            read_of.pop(key, None)


def _rows_of(keys: Sequence[str], answer: StoredRows) -> dict[str, _Row]:
    """Return the rows of an answer by key, without the unavailable ones."""
    tiers = np.broadcast_to(np.asarray(answer.tier, dtype=np.uint8), len(keys)).tolist()
    rows = dict(zip(keys, zip(answer.values, tiers, strict=True), strict=True))
    for position in () if answer.unavailable is None else answer.unavailable.tolist():
        rows.pop(keys[position], None)
    return rows


def _by_key(keys: Sequence[str], rows: Mapping[str, _Row], reason: str) -> StoredRows:
    """Return the rows in the order of `keys`. Rows that `rows` lacks are unavailable."""
    unavailable = [position for position, key in enumerate(keys) if key not in rows]
    in_order = [rows.get(key, _NO_ROW) for key in keys]
    values = [value for value, _ in in_order]
    tiers = np.array([tier for _, tier in in_order], dtype=np.uint8)
    if not unavailable:
        return StoredRows(values, tier=tiers)
    return StoredRows(values, np.array(unavailable, dtype=np.intp), reason, tiers)


def _keys_at(keys: Sequence[str], positions: Positions) -> Sequence[str]:
    """Return the keys at `positions`, or `keys` itself if these are all positions, in order."""
    if len(positions) == len(keys):
        return keys
    if len(positions) < 2:
        return [keys[i] for i in positions.tolist()]
    return list(itemgetter(*positions.tolist())(keys))


def _from_store(count: int, answer: StoredRows) -> Fetched:
    """Return a batch whose rows all come from the store; `count` is the number of keys."""
    pieces = [Piece(None, answer.values)]
    return Fetched(count, pieces, answer.unavailable, answer.reason, tier=answer.tier)


def _join(count: int, read: CacheRead, answer: StoredRows | None = None) -> Fetched:
    """Return a batch with the cached rows of `read`, and those of `answer` at `read.missing`.

    `count` is the number of keys. If `answer` is None, no rows are missing from the cache.
    """
    if count == len(read.table_positions):
        return Fetched(
            count,
            [Piece(None, read.table)],
            cached=_ALL_POSITIONS,
            from_store=_NO_POSITIONS,
            tier=Tier.NONE,
        )
    if answer is not None and count == len(read.missing):
        return _from_store(count, answer)
    beside_table = np.fromiter(read.values, dtype=np.intp, count=len(read.values))
    pieces = [Piece(beside_table, list(read.values.values()))] if len(beside_table) else []
    if len(read.table_positions):
        pieces.append(Piece(read.table_positions, read.table))
    fetched = Fetched(count, pieces, cached=np.concatenate([read.table_positions, beside_table]))
    fetched.from_store = read.missing
    if answer is not None and len(read.missing):
        pieces.append(Piece(read.missing, answer.values))
        fetched.tier, fetched.reason = answer.tier, answer.reason
        if answer.unavailable is not None:
            fetched.unavailable = read.missing[answer.unavailable]
    return fetched
