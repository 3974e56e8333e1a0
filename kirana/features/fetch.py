"""From keys to stored values: the cache first, then the store, each key once."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain

import numpy as np
import numpy.typing as npt

from kirana import native
from kirana.codecs import CODECS, Rows, Status
from kirana.codecs.rows import Piece
from kirana.errors import PartlyUnavailable, Unavailable
from kirana.features.cache.feature_cache import FeatureCache
from kirana.features.cache.group import CacheRead
from kirana.loop import look_at_error
from kirana.schema import FeatureGroup
from kirana.stores import FeatureStore

Flight = asyncio.Task[dict[bytes, bytes | None]]
Places = npt.NDArray[np.intp]
_EVERYWHERE = slice(None)


def key_prefix(group: str) -> str:
    """Return what stands before the key text: `f:<entity>.<group>:`, the same in every store."""
    return f"f:{group}:"


def store_keys(group: str, keys: Sequence[str]) -> list[bytes]:
    """Return the keys of rows as stores have them."""
    prefix = key_prefix(group)
    if native.COMPILED:
        return native.keys.store_keys(prefix, keys if isinstance(keys, list) else list(keys))
    together = (prefix + f"\0{prefix}".join(keys)).encode()
    found = together.split(b"\0")
    if len(found) == len(keys):
        return found
    return [f"{prefix}{key}".encode() for key in keys]


@dataclass(slots=True)
class Fetched:
    """The values of one group, in pieces; where the store did not answer, and what was cached."""

    count: int
    pieces: list[Piece] = field(default_factory=list)
    unavailable: Places | slice | None = None
    cached: Places | slice | None = None

    def keep(self) -> None:
        """Copy what the cache has lent: only who does not wait may leave it there."""
        for piece in self.pieces:
            if native.COMPILED and isinstance(piece.values, native.slots.Borrowed):
                piece.values.keep()

    def decode(self, group: FeatureGroup, now_s: float) -> Rows:
        rows = CODECS[group.codec].decode_pieces(self.count, self.pieces, group, now_s)
        if self.unavailable is not None:
            rows.status[self.unavailable] = Status.UNAVAILABLE
        return rows


class Fetcher:
    """Reads rows of several groups at once; keys that two callers miss are fetched once."""

    def __init__(self, store: FeatureStore, cache: FeatureCache | None) -> None:
        self._store = store
        self._cache = cache
        self._flights: dict[bytes, Flight] = {}
        self.why = ""
        """Why the store did not answer the last time that it did not."""

    async def fetch(self, groups: Sequence[FeatureGroup], keys: Sequence[str]) -> list[Fetched]:
        """Return what is stored. Of a store that does not answer, no value is there."""
        if not keys:
            return [Fetched(0) for _ in groups]
        if self._cache is None:
            return await self._fetch_all(groups, keys)
        reads = [self._cache.look_up(group, keys) for group in groups]
        missing = [[keys[at] for at in read.missing] for read in reads]
        wanted = [store_keys(g.name, each) for g, each in zip(groups, missing, strict=True)]
        found: dict[bytes, bytes | None] = {}
        if any(missing):
            found = await self._load(groups, missing, wanted)
        return [
            _put_together(len(keys), read, stored, found)
            for read, stored in zip(reads, wanted, strict=True)
        ]

    async def _fetch_all(
        self, groups: Sequence[FeatureGroup], keys: Sequence[str]
    ) -> list[Fetched]:
        wanted = [store_keys(group.name, keys) for group in groups]
        count = len(keys)
        alone = len(wanted) == 1
        away: Sequence[int] = ()
        try:
            values = await self._store.get(wanted[0] if alone else [*chain.from_iterable(wanted)])
        except PartlyUnavailable as error:
            values, away, self.why = error.values, error.away, error.message
        except Unavailable as error:
            self.why = error.message
            return [Fetched(count, unavailable=_EVERYWHERE) for _ in groups]
        starts = range(0, count * len(groups), count)
        each = [values] if alone else [values[at : at + count] for at in starts]
        fetched = [Fetched(count, [Piece(None, found)]) for found in each]
        if away:
            places = np.array(away, dtype=np.intp)
            for start, found in zip(starts, fetched, strict=True):
                of_group = places[(places >= start) & (places < start + count)] - start
                found.unavailable = of_group if len(of_group) else None
        return fetched

    async def _load(
        self,
        groups: Sequence[FeatureGroup],
        missing: Sequence[Sequence[str]],
        wanted: Sequence[Sequence[bytes]],
    ) -> dict[bytes, bytes | None]:
        """Fetch what nobody is fetching yet, in one batch; return all that could be fetched."""
        flights = self._flights
        mine = [[at for at, key in enumerate(stored) if key not in flights] for stored in wanted]
        if any(mine):
            task = asyncio.create_task(self._fly(groups, missing, wanted, mine))
            # who asked may be gone before it ends
            task.add_done_callback(look_at_error)
            for stored, places in zip(wanted, mine, strict=True):
                flights.update(dict.fromkeys([stored[at] for at in places], task))
        # a write may take a key out of its flight while this waits: each is its own flight's
        of_keys = {key: flights[key] for stored in wanted for key in stored}
        landed: dict[Flight, Mapping[bytes, bytes | None]] = {}
        for flight in set(of_keys.values()):
            try:
                landed[flight] = await asyncio.shield(flight)
            except Unavailable as error:
                self.why = error.message
                landed[flight] = {}
        return {
            key: landed[flight][key] for key, flight in of_keys.items() if key in landed[flight]
        }

    async def _fly(
        self,
        groups: Sequence[FeatureGroup],
        missing: Sequence[Sequence[str]],
        wanted: Sequence[Sequence[bytes]],
        mine: Sequence[Sequence[int]],
    ) -> dict[bytes, bytes | None]:
        task = asyncio.current_task()
        flights = self._flights
        stored = [[each[at] for at in places] for each, places in zip(wanted, mine, strict=True)]
        asked = [*dict.fromkeys(chain.from_iterable(stored))]
        assert self._cache is not None
        began = self._cache.now()
        try:
            values = await self._ask(asked)
            for group, names, places, keys in zip(groups, missing, mine, stored, strict=True):
                # what was written meanwhile is not of this flight any more
                current = [
                    at for at, key in enumerate(keys) if flights.get(key) is task and key in values
                ]
                if current:
                    texts = [names[places[at]] for at in current]
                    self._cache.fill(
                        group, texts, [values[keys[at]] for at in current], since=began
                    )
            return values
        finally:
            for key in asked:
                if flights.get(key) is task:
                    del flights[key]

    async def _ask(self, keys: Sequence[bytes]) -> dict[bytes, bytes | None]:
        """Return what the store has of them; keys that it could not look up are left out."""
        try:
            return dict(zip(keys, await self._store.get(keys), strict=True))
        except PartlyUnavailable as error:
            self.why = error.message
            values = dict(zip(keys, error.values, strict=True))
            for at in error.away:
                values.pop(keys[at], None)
            return values

    def written(self, group: str, keys: Sequence[str]) -> None:
        """Forget what was known of keys that were written, and what is being fetched of them."""
        if self._cache is not None:
            self._cache.forget(group, keys)
            for key in store_keys(group, keys):
                self._flights.pop(key, None)


def _put_together(
    count: int,
    read: CacheRead,
    stored: Sequence[bytes],
    found: Mapping[bytes, bytes | None],
) -> Fetched:
    """Join what was cached with what was fetched; `stored` are the keys of `read.missing`."""
    if count == len(read.in_table):
        return Fetched(count, [Piece(None, read.table)], cached=_EVERYWHERE)
    known = np.fromiter(read.values, dtype=np.intp, count=len(read.values))
    pieces = [Piece(known, list(read.values.values()))] if len(known) else []
    if len(read.in_table):
        pieces.append(Piece(read.in_table, read.table))
    there = [at for at, key in enumerate(stored) if key in found]
    missing = np.array(read.missing, dtype=np.intp)
    if there:
        pieces.append(Piece(missing[there], [found[stored[at]] for at in there]))
    away = None
    if len(there) < len(stored):
        away = np.setdiff1d(missing, missing[there])
    return Fetched(count, pieces, away, np.concatenate([read.in_table, known]))
