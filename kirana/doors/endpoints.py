"""The live direct ports of all replicas: each writes a note to a registry and reads all notes."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import msgspec

from kirana.edge.resources import Endpoint

__all__ = ["Endpoint", "EndpointRegistry", "Endpoints"]

logger = logging.getLogger(__name__)

BEAT_S = 0.5
STALE_S = 3.0
"""A note that has not changed for so long is of a replica that died."""
FORGOTTEN_S = 60.0


class EndpointRegistry(Protocol):
    """Small notes by name that every replica of the cluster sees. Calls may block."""

    def write(self, name: str, note: bytes) -> None: ...

    def remove(self, name: str) -> None: ...

    def read(self) -> dict[str, bytes]: ...


class _Note(msgspec.Struct):
    url: str
    beat: int


@dataclass(slots=True)
class _Seen:
    note: _Note
    changed: float


class Endpoints:
    """What `GET /v1/endpoints` answers from; `follow` keeps it up to date.

    No two clocks are compared: a note has to change, as seen by the clock of who reads it.
    """

    def __init__(
        self,
        registry: EndpointRegistry | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._registry = registry
        self._clock = clock
        self._own: Endpoint | None = None
        self._own_name: str | None = None
        self._looked = clock()
        self._away = False
        self._beat = 0
        self._seen: dict[str, _Seen] = {}

    def live(self) -> list[Endpoint]:
        """Return the endpoints that take requests, this replica's own first."""
        # while the registry is away nobody can be seen to beat: the last that was seen stands
        fresh = (self._looked if self._away else self._clock()) - STALE_S
        found = [self._own] if self._own else []
        found += [
            Endpoint(name, seen.note.url)
            for name, seen in sorted(self._seen.items())
            if seen.changed > fresh
        ]
        return found

    async def announce(self, own: Endpoint) -> None:
        self._own = own
        self._own_name = own.replica
        await self._look()

    async def withdraw(self) -> None:
        """Take this replica's note off; returns at once if there is none."""
        own, self._own = self._own, None
        if own is not None and self._registry is not None:
            await asyncio.to_thread(self._registry.remove, own.replica)

    async def follow(self) -> None:
        """Beat and look, until cancelled. A registry that is away leaves what was last seen."""
        while self._registry is not None:
            await asyncio.sleep(BEAT_S)
            try:
                await self._look()
            except Exception:
                self._away = True
                logger.warning("the registry of direct ports does not answer", exc_info=True)

    async def _look(self) -> None:
        if self._registry is None:
            return
        own = self._own
        if own is not None:
            self._beat += 1
            note = msgspec.json.encode(_Note(own.url, self._beat))
            await asyncio.to_thread(self._registry.write, own.replica, note)
            if self._own is None:
                # withdrawn meanwhile: the note must not come back
                await asyncio.to_thread(self._registry.remove, own.replica)
        notes = await asyncio.to_thread(self._registry.read)
        self._take(notes)
        for name, seen in list(self._seen.items()):
            if self._clock() - seen.changed > FORGOTTEN_S:
                del self._seen[name]
                await asyncio.to_thread(self._registry.remove, name)

    def _take(self, notes: dict[str, bytes]) -> None:
        now = self._clock()
        if self._away:
            for each in self._seen.values():
                each.changed += now - self._looked
        self._away, self._looked = False, now
        for name in self._seen.keys() - notes.keys():
            del self._seen[name]
        for name, text in notes.items():
            if name == self._own_name:
                continue
            try:
                note = msgspec.json.decode(text, type=_Note)
            except msgspec.DecodeError:
                continue  # no note of ours: it hides none of the others
            seen = self._seen.get(name)
            if seen is None or seen.note != note:
                self._seen[name] = _Seen(note, now)
