"""The published revisions of a catalog in a directory: `.kirana/revisions/<n>/` and `CURRENT`."""

from __future__ import annotations

import shutil
import time
from collections.abc import Collection, Mapping
from pathlib import Path

import orjson

from kirana.catalog.deltas import delta_of
from kirana.catalog.durable import write_durably
from kirana.catalog.items import Key
from kirana.catalog.publishing import record_of
from kirana.catalog.remembered import read_uses, spell_uses
from kirana.catalog.revision_file import serialize
from kirana.catalog.snapshot import Catalog, Uses
from kirana.catalog.stamps import Stamp, stamp_of
from kirana.revision import NO_REVISION, Revision


class RevisionFolder:
    """`state` is the folder `.kirana` of a catalog."""

    def __init__(self, state: Path) -> None:
        self._state = state
        self._current = state / "CURRENT"
        self._seen = False
        self.away_since: float | None = None
        """Since when what was there is gone."""

    def current(self) -> Revision:
        """Return the live revision, `NO_REVISION` if there is none."""
        try:
            number, _, identity = self._current.read_text().strip().partition(" ")
        except (OSError, UnicodeDecodeError):
            number, identity = "", ""
        if number.isdecimal():
            self._seen, self.away_since = True, None
            return Revision(identity, int(number))
        if self._seen and self.away_since is None:
            self.away_since = time.time()
        return NO_REVISION

    def file(self, revision: int, name: str = "catalog.json") -> Path:
        return self._state / "revisions" / str(revision) / name

    def numbers(self) -> list[int]:
        """Return the numbers of all revisions that are there, also of what a crash has left."""
        folder = self._state / "revisions"
        names = [each.name for each in folder.iterdir()] if folder.is_dir() else []
        return [int(name) for name in names if name.isdecimal()]

    def read(self, revision: int, name: str = "catalog.json") -> bytes:
        """Return a file of a revision, nothing if it is not there."""
        try:
            return self.file(revision, name).read_bytes()
        except OSError:
            return b""

    def stamp(self, revision: int) -> Stamp:
        """Return what differs once the file of a revision was changed."""
        return stamp_of(self.file(revision))

    def uses(self, revision: int) -> Mapping[Key, Uses] | None:
        """Return what the objects of a revision look up; None unless this Kirana has checked it."""
        return read_uses(self.read(revision, "uses.json"), self.stamp(revision))

    def write(
        self, revision: Revision, catalog: Catalog, before: Catalog | None, changed: Collection[Key]
    ) -> None:
        """Write a revision down, not live yet."""
        number = revision.number
        self.file(number).parent.mkdir(parents=True)
        write_durably(self.file(number), *serialize(catalog, revision.catalog))
        uses = spell_uses(catalog.uses, self.stamp(number))
        write_durably(self.file(number, "uses.json"), uses)
        if before is not None:
            delta = delta_of(before, self.stamp(before.revision.number), catalog, changed)
            write_durably(self.file(number, "changes.json"), delta)
        record = record_of(number, changed, catalog)
        write_durably(self.file(number, "about.json"), orjson.dumps(record))

    def discard_after(self, live: int) -> None:
        """Remove what a publish that failed has left: it was never live."""
        for number in [number for number in self.numbers() if number > live]:
            shutil.rmtree(self.file(number).parent, ignore_errors=True)

    def make_current(self, revision: Revision) -> None:
        write_durably(self._current, f"{revision.number} {revision.catalog}".encode())

    def prune(self, kept: int) -> int:
        """Remove the revisions before the last ones; return the oldest that is kept."""
        numbers = sorted(self.numbers())
        for number in numbers[:-kept]:
            shutil.rmtree(self.file(number).parent, ignore_errors=True)
        return min(numbers[-kept:])
