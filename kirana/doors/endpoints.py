"""The list of live direct ports. Replicas learn of each other through a shared registry."""

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
"""Seconds between two writes of a replica's own note."""
STALE_S = 3.0
"""A replica whose note has not changed for this long counts as dead."""
REMOVED_AFTER_S = 60.0
"""A note that has not changed for this long is removed from the registry."""


class EndpointRegistry(Protocol):
    """Small notes by name, shared by all replicas of the cluster. Calls may block."""

    def write(self, name: str, note: bytes) -> None:
        """Store a note. It replaces an older note of this name."""

    def remove(self, name: str) -> None:
        """Remove a note, if it exists."""

    def read(self) -> dict[str, bytes]:
        """Return all notes by name."""


class _Note(msgspec.Struct):
    """The note of one replica. `beat` increases with each write, which shows that it is alive."""

    url: str
    beat: int


@dataclass(slots=True)
class _Seen:
    """The note of another replica, and the time on this replica's clock when it last changed."""

    note: _Note
    changed: float


class Endpoints:
    """The list that `GET /v1/endpoints` returns; `follow` keeps it up to date.

    The clocks of two machines are never compared. A replica counts as live while its note keeps
    changing, as measured by the clock of the replica that reads it.
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
        self._read_at = clock()
        self._unreachable = False
        self._beat = 0
        self._seen: dict[str, _Seen] = {}

    def live(self) -> list[Endpoint]:
        """Return the live direct ports, this replica's own first."""
        # While the registry does not answer, no note can change. So the age of a note is counted
        # only up to the last read.
        oldest = (self._read_at if self._unreachable else self._clock()) - STALE_S
        endpoints = [self._own] if self._own else []
        endpoints += [
            Endpoint(name, seen.note.url)
            for name, seen in sorted(self._seen.items())
            if seen.changed > oldest
        ]
        return endpoints

    async def announce(self, own: Endpoint) -> None:
        """Add this replica's direct port to the list. If there is a registry, exchange notes once.

        That is, write this replica's note, and read those of the other replicas. Raise the
        registry's error if it does not answer.
        """
        self._own = own
        self._own_name = own.replica
        await self._exchange_notes()

    async def withdraw(self) -> None:
        """Remove this replica's direct port from the list, and its note from the registry.

        Raise the registry's error if it does not answer.
        """
        own, self._own = self._own, None
        if own is not None and self._registry is not None:
            await asyncio.to_thread(self._registry.remove, own.replica)

    async def follow(self) -> None:
        """Exchange notes with the other replicas every `BEAT_S` seconds, until cancelled.

        A replica that has withdrawn only reads. While the registry does not answer, the list stays
        as it is. Without a registry, return at once.
        """
        while self._registry is not None:
            await asyncio.sleep(BEAT_S)
            try:
                await self._exchange_notes()
            except Exception:
                self._unreachable = True
                logger.warning("the registry of direct ports does not answer", exc_info=True)

    async def _exchange_notes(self) -> None:
        """Write this replica's note, read all notes, and remove those of long dead replicas."""
        if self._registry is None:
            return
        own = self._own
        if own is not None:
            self._beat += 1
            note = msgspec.json.encode(_Note(own.url, self._beat))
            await asyncio.to_thread(self._registry.write, own.replica, note)
            if self._own is None:
                # `withdraw` was called during the write, which may have brought the note back.
                await asyncio.to_thread(self._registry.remove, own.replica)
        notes = await asyncio.to_thread(self._registry.read)
        self._update(notes)
        for name, seen in list(self._seen.items()):
            if self._clock() - seen.changed > REMOVED_AFTER_S:
                del self._seen[name]
                await asyncio.to_thread(self._registry.remove, name)

    def _update(self, notes: dict[str, bytes]) -> None:
        """Update what is known of the other replicas. `notes` are all notes in the registry."""
        now = self._clock()
        if self._unreachable:
            # The time in which the registry did not answer does not make notes older.
            for seen in self._seen.values():
                seen.changed += now - self._read_at
        self._unreachable, self._read_at = False, now
        for name in self._seen.keys() - notes.keys():
            del self._seen[name]
        for name, text in notes.items():
            if name == self._own_name:
                continue
            try:
                note = msgspec.json.decode(text, type=_Note)
            except msgspec.DecodeError:
                continue  # One unreadable note must not hide the others.
            previous = self._seen.get(name)
            if previous is None or previous.note != note:
                self._seen[name] = _Seen(note, now)
