"""From keys to stored values: the cache first, then the store, each key once."""

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
from kirana.features.cache import FeatureCache
from kirana.features.cache.group import CacheRead
from kirana.schema import FeatureGroup
from kirana.stores import FeatureStore, RowKeys, StoredRows

Positions = npt.NDArray[np.intp]
_EVERYWHERE = slice(None)
_NOWHERE: Positions = np.empty(0, dtype=np.intp)


@dataclass(slots=True)
class Fetched:
    """The values of one group, in pieces.

    `unavailable` are the positions of rows that could not be read, and `reason` says why; `cached`
    are those that the cache had, and `tier` is who had the others, which are at `asked`.
    """

    count: int
    pieces: list[Piece] = field(default_factory=list)
    unavailable: Positions | None = None
    reason: str = ""
    cached: Positions | slice = field(default_factory=lambda: _NOWHERE)
    asked: Positions | slice = field(default_factory=lambda: _EVERYWHERE)
    tier: Tier | npt.NDArray[np.uint8] = Tier.DURABLE

    def keep(self) -> None:
        """Copy what the cache has lent: only who does not wait may leave it there."""
        for piece in self.pieces:
            if native.COMPILED and isinstance(piece.values, native.borrowed.Borrowed):
                piece.values.keep()

    def decode(self, group: FeatureGroup, now_s: float) -> Rows:
        rows = CODECS[group.codec].decode_pieces(self.count, self.pieces, group, now_s)
        if self.unavailable is not None:
            rows.status[self.unavailable] = Status.UNAVAILABLE
        return rows

    def tiers(self) -> npt.NDArray[np.uint8]:
        """Return a `Tier` per row: where it was found, or looked for last."""
        found = np.zeros(self.count, dtype=np.uint8)
        found[self.asked] = self.tier
        found[self.cached] = Tier.CACHE
        return found


class _Flight:
    """One read of the store, for all who miss one of its rows meanwhile."""

    def __init__(self, groups: Sequence[FeatureGroup], wanted: Sequence[RowKeys]) -> None:
        self.groups = groups
        self.wanted = wanted
        self.written: dict[str, set[str]] = defaultdict(set)
        """Keys by group that were written since it began: its rows of them are not kept."""
        self.indexed = False
        self.answers: Sequence[StoredRows] = ()
        self.over = False
        self.waiting: asyncio.Future[None] | None = None
        """Tells those who wait that it is over; None while nobody waits."""

    async def has_answers(self) -> bool:
        """Wait until it lands; False if it was given up."""
        if not self.over:
            if self.waiting is None:
                self.waiting = asyncio.get_running_loop().create_future()
            # of several who wait, one may be cancelled
            await asyncio.shield(self.waiting)
        return bool(self.answers)

    def values(self, group: str) -> dict[str, bytes | None]:
        """Return the values of a group by key, without unavailable ones."""
        at = next(at for at, rows in enumerate(self.wanted) if rows.group == group)
        return _values_of(self.wanted[at].keys, self.answers[at])


class Fetcher:
    """Reads rows of several groups at once; keys that two callers miss are fetched once."""

    def __init__(self, store: FeatureStore, cache: FeatureCache | None) -> None:
        self._store = store
        self._cache = cache
        self._flights: set[_Flight] = set()
        """Those that are under way."""
        self._flying: dict[str, dict[str, _Flight]] = defaultdict(dict)
        """Flights by group and key, of those that were `indexed`: most land before anybody asks."""

    async def fetch(self, groups: Sequence[FeatureGroup], keys: Sequence[str]) -> list[Fetched]:
        """Return what is stored. Rows that a server does not give are `unavailable`."""
        if not keys:
            return [Fetched(0) for _ in groups]
        if self._cache is None:
            answers = await self._store.read([RowKeys(group.name, keys) for group in groups])
            return [_as_it_came(len(keys), answer) for answer in answers]
        reads = [self._cache.look_up(group, keys) for group in groups]
        missing = [_chosen(keys, read.missing) for read in reads]
        if not any(missing):
            return [_put_together(len(keys), read) for read in reads]
        found = await self._complete(self._cache, groups, missing)
        return [_put_together(len(keys), r, answer) for r, answer in zip(reads, found, strict=True)]

    async def _complete(
        self, cache: FeatureCache, groups: Sequence[FeatureGroup], missing: Sequence[Sequence[str]]
    ) -> Sequence[StoredRows]:
        """Read what the cache lacks: what nobody reads yet, in one call, and what others read."""
        others = [
            self._others(group.name, keys) for group, keys in zip(groups, missing, strict=True)
        ]
        if not any(others):
            return await self._fly(cache, groups, missing)
        mine = [
            [key for key in keys if key not in other]
            for keys, other in zip(missing, others, strict=True)
        ]
        own = await self._fly(cache, groups, mine) if any(mine) else None
        landed = {
            flight: await flight.has_answers()
            for flight in {flight for other in others for flight in other.values()}
        }
        if not all(landed.values()):
            # who began them is gone: what is still missing is read anew
            return await self._complete(cache, groups, missing)
        answers = []
        for at, (group, keys, other) in enumerate(zip(groups, missing, others, strict=True)):
            # two flights may bring a key that was written between them: each key is that of its own
            brought = {flight: flight.values(group.name) for flight in set(other.values())}
            found = {key: brought[f][key] for key, f in other.items() if key in brought[f]}
            reasons = [answer.reason for flight in brought for answer in flight.answers]
            if own is not None:
                found |= _values_of(mine[at], own[at])
                reasons.append(own[at].reason)
            answers.append(_by_key(keys, found, max(reasons, key=len, default="")))
        return answers

    async def _fly(
        self, cache: FeatureCache, groups: Sequence[FeatureGroup], missing: Sequence[Sequence[str]]
    ) -> Sequence[StoredRows]:
        """Read rows from the store and keep them."""
        wanted = [RowKeys(group.name, keys) for group, keys in zip(groups, missing, strict=True)]
        flight = _Flight(groups, wanted)
        self._flights.add(flight)
        began = cache.now()
        try:
            flight.answers = answers = await self._store.read(wanted)
            for at in range(len(wanted)):
                self._keep(cache, flight, at, began)
            return answers
        finally:
            self._land(flight)

    @staticmethod
    def _keep(cache: FeatureCache, flight: _Flight, at: int, began: float) -> None:
        """Keep the rows of a group, but those that are not known, or were written meanwhile."""
        group, keys, answer = flight.groups[at], flight.wanted[at].keys, flight.answers[at]
        if not keys:
            return
        written = flight.written.get(group.name)
        if answer.unavailable is None and not written:
            cache.fill(group, keys, answer.values, since=began)
            return
        away = set() if answer.unavailable is None else {*answer.unavailable.tolist()}
        kept = [
            position
            for position, key in enumerate(keys)
            if position not in away and not (written and key in written)
        ]
        if kept:
            values = [answer.values[position] for position in kept]
            cache.fill(group, [keys[position] for position in kept], values, since=began)

    def _others(self, group: str, keys: Sequence[str]) -> dict[str, _Flight]:
        """Return the flights that bring some of the keys already."""
        if not self._flights:
            return {}
        for flight in self._flights:
            if not flight.indexed:
                flight.indexed = True
                for rows in flight.wanted:
                    written = flight.written.get(rows.group, ())
                    brought = [key for key in rows.keys if key not in written]
                    self._flying[rows.group].update(dict.fromkeys(brought, flight))
        flying = self._flying[group]
        if flying.keys().isdisjoint(keys):
            return {}
        return {key: flying[key] for key in keys if key in flying}

    def _land(self, flight: _Flight) -> None:
        self._flights.discard(flight)
        flight.over = True
        if flight.waiting is not None:
            flight.waiting.set_result(None)
        if not flight.indexed:
            return
        if not self._flights:
            self._flying.clear()
            return
        for rows in flight.wanted:
            flying = self._flying[rows.group]
            for key in rows.keys:
                # another flight may bring what was written
                if flying.get(key) is flight:
                    del flying[key]

    def written(self, group: str, keys: Sequence[str]) -> None:
        """Forget what was known of keys that were written, and what is being fetched of them."""
        if self._cache is None:
            return
        self._cache.forget(group, keys)
        for flight in self._flights:
            flight.written[group].update(keys)
        flying = self._flying[group]
        for key in keys if flying else ():
            flying.pop(key, None)


def _values_of(keys: Sequence[str], answer: StoredRows) -> dict[str, bytes | None]:
    """Return the values of an answer by key, without unavailable ones."""
    found = dict(zip(keys, answer.values, strict=True))
    for position in () if answer.unavailable is None else answer.unavailable.tolist():
        found.pop(keys[position], None)
    return found


def _by_key(keys: Sequence[str], found: Mapping[str, bytes | None], reason: str) -> StoredRows:
    """Return rows in the order of their keys; those that are not found are unavailable."""
    away = [at for at, key in enumerate(keys) if key not in found]
    values = [found.get(key) for key in keys]
    if not away:
        return StoredRows(values)
    return StoredRows(values, np.array(away, dtype=np.intp), reason)


def _chosen(keys: Sequence[str], positions: Positions) -> Sequence[str]:
    if len(positions) == len(keys):
        return keys
    if len(positions) < 2:
        return [keys[at] for at in positions.tolist()]
    return list(itemgetter(*positions.tolist())(keys))


def _as_it_came(count: int, answer: StoredRows) -> Fetched:
    pieces = [Piece(None, answer.values)]
    return Fetched(count, pieces, answer.unavailable, answer.reason, tier=answer.tier)


def _put_together(count: int, read: CacheRead, answer: StoredRows | None = None) -> Fetched:
    """Join what was cached with what was fetched: the answer for the keys of `read.missing`."""
    if count == len(read.in_table):
        return Fetched(
            count, [Piece(None, read.table)], cached=_EVERYWHERE, asked=_NOWHERE, tier=Tier.NONE
        )
    if answer is not None and count == len(read.missing):
        return _as_it_came(count, answer)
    known = np.fromiter(read.values, dtype=np.intp, count=len(read.values))
    pieces = [Piece(known, list(read.values.values()))] if len(known) else []
    if len(read.in_table):
        pieces.append(Piece(read.in_table, read.table))
    fetched = Fetched(count, pieces, cached=np.concatenate([read.in_table, known]))
    fetched.asked = read.missing
    if answer is not None and len(read.missing):
        pieces.append(Piece(read.missing, answer.values))
        fetched.tier, fetched.reason = answer.tier, answer.reason
        if answer.unavailable is not None:
            fetched.unavailable = read.missing[answer.unavailable]
    return fetched
