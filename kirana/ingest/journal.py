"""How far a push has got, in a file, so that the same push goes on after it was killed."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

SAVE_EVERY_S = 1.0

MAX_AGE_MS = 24 * 3_600_000
"""A push that began longer ago begins again: its rows may have expired meanwhile."""


class Pushed(msgspec.Struct):
    """The numbers of rows that were pushed to one group.

    `rows` is the number of all rows that are right. `written` rows were stored, as far as the store
    can say. `expired` rows were past the TTL of their group when they were pushed. They replace
    older rows, but reads return defaults for them. `sent` rows are in Kafka. `rejected` rows were
    wrong.
    """

    rows: int = 0
    written: int = 0
    expired: int = 0
    rejected: int = 0
    sent: int = 0

    @property
    def stale(self) -> int:
        """The number of rows that were not stored, because the stored rows are newer."""
        return self.rows - self.written - self.expired - self.sent


class _State(msgspec.Struct):
    began_ms: int
    is_checked: bool = False
    done: dict[int, int] = {}
    pushed: dict[str, Pushed] = {}


class Journal:
    """The progress of one push, which its `identity` names: its files and its options.

    Without a `folder`, nothing is kept.
    """

    def __init__(self, folder: Path | None = None, identity: Sequence[object] = ()) -> None:
        digest = hashlib.sha256(msgspec.json.encode(identity)).hexdigest()[:16]
        self._path = folder / f"{digest}.json" if folder else None
        self._state = self._load() or _State(_now_ms())
        self._saved_s = time.monotonic()

    def _load(self) -> _State | None:
        if self._path is None or not self._path.exists():
            return None
        try:
            state = msgspec.json.decode(self._path.read_bytes(), type=_State)
        except msgspec.DecodeError:
            return None  # It was cut off when the machine failed. Rows may be written twice.
        return state if _now_ms() - state.began_ms < MAX_AGE_MS else None

    @property
    def began_ms(self) -> int:
        """When the push began first, in Unix milliseconds."""
        return self._state.began_ms

    @property
    def is_checked(self) -> bool:
        """Whether all files were checked already."""
        return self._state.is_checked

    @property
    def rejects(self) -> Path | None:
        """The file for the rows that this push rejects, beside that of the journal."""
        return self._path.with_suffix(".rejected.jsonl") if self._path else None

    @property
    def pushed(self) -> dict[str, Pushed]:
        """The outcome so far, by the name of the group."""
        return self._state.pushed

    @property
    def rows_done(self) -> int:
        """The number of rows in all files that an earlier run has processed."""
        return sum(self._state.done.values())

    def done(self, file: int) -> int:
        """Return the number of rows of a file, from its start, that were processed."""
        return self._state.done.get(file, 0)

    def checked(self) -> None:
        """Record that all files were checked."""
        self._state.is_checked = True
        self._save()

    def advance(self, file: int, stop: int) -> None:
        """Record that the rows of a file before `stop` were processed."""
        self._state.done[file] = stop
        if time.monotonic() - self._saved_s >= SAVE_EVERY_S:
            self._save()

    def _save(self) -> None:
        self._saved_s = time.monotonic()
        if self._path is None:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        # Two processes may push the same files.
        new = self._path.with_suffix(f".{os.getpid()}.new")
        new.write_bytes(msgspec.json.encode(self._state))
        new.replace(self._path)

    def begin_again(self) -> None:
        """Forget what an earlier run has done."""
        self.forget()
        self._state = _State(_now_ms())

    def forget(self) -> None:
        """Remove the file: the push is complete."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
