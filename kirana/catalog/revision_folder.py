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
from kirana.catalog.publishing import revision_record
from kirana.catalog.remembered import read_uses, spell_uses
from kirana.catalog.revision_file import serialize
from kirana.catalog.snapshot import Catalog, Uses
from kirana.catalog.stamps import Stamp, stamp_of
from kirana.revision import NO_REVISION, Revision


class RevisionFolder:
    """The published revisions in `state`, the `.kirana` folder of a catalog."""

    def __init__(self, state: Path) -> None:
        self._state = state
        self._current = state / "CURRENT"
        self._seen = False
        self.away_since: float | None = None
        """Since when (Unix seconds) `CURRENT` has named no revision, or None while it names one.

        It is set by `current`. It is also None until `current` has found a revision once.
        """

    def current(self) -> Revision:
        """Return the live revision, or `NO_REVISION` if `CURRENT` names none.

        Update `away_since`.
        """
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
        """Return the path of a file of a revision."""
        return self._state / "revisions" / str(revision) / name

    def numbers(self) -> list[int]:
        """Return the numbers of all revisions on disk, including those of failed publishes."""
        folder = self._state / "revisions"
        names = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
        return [int(name) for name in names if name.isdecimal()]

    def read(self, revision: int, name: str = "catalog.json") -> bytes:
        """Return the content of a file of a revision, or b"" if it can't be read."""
        try:
            return self.file(revision, name).read_bytes()
        except OSError:
            return b""

    def stamp(self, revision: int) -> Stamp:
        """Return the stamp of the `catalog.json` of a revision."""
        return stamp_of(self.file(revision))

    def uses(self, revision: int) -> Mapping[Key, Uses] | None:
        """Return the `Catalog.uses` of a revision, or None if this code has not validated it."""
        return read_uses(self.read(revision, "uses.json"), self.stamp(revision))

    def write(
        self, revision: Revision, catalog: Catalog, before: Catalog | None, changed: Collection[Key]
    ) -> None:
        """Write the files of a revision durably, without making it live.

        `before` is the previous revision, and `changed` are the keys of the objects that differ.
        Without `before`, there is no `changes.json`.
        """
        number = revision.number
        self.file(number).parent.mkdir(parents=True)
        write_durably(self.file(number), *serialize(catalog, revision.catalog))
        uses = spell_uses(catalog.uses, self.stamp(number))
        write_durably(self.file(number, "uses.json"), uses)
        if before is not None:
            delta = delta_of(before, self.stamp(before.revision.number), catalog, changed)
            write_durably(self.file(number, "changes.json"), delta)
        record = revision_record(number, changed, catalog)
        write_durably(self.file(number, "about.json"), orjson.dumps(record))

    def discard_after(self, live: int) -> None:
        """Remove the revisions after the live one, which failed publishes have left."""
        for number in [number for number in self.numbers() if number > live]:
            shutil.rmtree(self.file(number).parent, ignore_errors=True)

    def make_current(self, revision: Revision) -> None:
        """Make a revision live."""
        write_durably(self._current, f"{revision.number} {revision.catalog}".encode())

    def prune(self, kept: int) -> int:
        """Remove all but the last `kept` revisions. Return the number of the oldest one kept."""
        numbers = sorted(self.numbers())
        for number in numbers[:-kept]:
            shutil.rmtree(self.file(number).parent, ignore_errors=True)
        return min(numbers[-kept:])
