"""The spool: writes that are in the store, and on their way to an archive without Kafka.

    <archive>/.spool/<writer>-<number>.log

Each process that writes features appends to files of its own. An archiver turns a file into files
of the archive once its writer has closed it, or is dead, and then removes it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO
from uuid import uuid4

from kirana.streams.messages import DELETE, PUT

FOLDER = ".spool"
MAX_BYTES = 32 << 20
"""A file is closed when it has so many bytes."""

_HEADER = struct.Struct("<IBQQI")
"""Size of the message, 1 for a delete, time of storage, number of the message, revision."""


@dataclass(frozen=True, slots=True)
class SpooledMessage:
    """A message whose rows the store had at `stored_ms`, in Unix milliseconds.

    `number` counts the messages of its writer. `revision` is that in which it was written.
    """

    kind: bytes
    stored_ms: int
    number: int
    revision: int
    value: bytes


class SpoolWriter:
    """Appends messages to the files of one writer. Others don't touch them while it lives.

    A message that was appended outlives this process, but not a crash of the machine.
    """

    def __init__(self, archive: Path, period_s: float) -> None:
        self._folder = archive / FOLDER
        self._folder.mkdir(parents=True, exist_ok=True)
        self._period_s = period_s
        self.name = uuid4().hex[:12]
        self._files = 0
        self._messages = 0
        self._file: IO[bytes] | None = None
        self._began_s = 0.0

    def append(self, kind: bytes, value: bytes, revision: int) -> None:
        """Append a message whose rows the store has now."""
        file = self._file or self._open()
        stored_ms = time.time_ns() // 1_000_000
        header = _HEADER.pack(len(value), kind == DELETE, stored_ms, self._messages, revision)
        try:
            _write_whole(file, header + value)
        except OSError:
            # What follows a message that was cut off could not be read.
            self.close()
            raise
        self._messages += 1
        if file.tell() >= MAX_BYTES:
            self.close()

    def _open(self) -> IO[bytes]:
        name = f"{self.name}-{self._files:09d}.log"
        self._files += 1
        path = self._folder / f".{name}"
        self._file = path.open("ab", buffering=0)
        # An archiver takes a file that nobody has locked.
        fcntl.flock(self._file, fcntl.LOCK_EX)
        path.rename(self._folder / name)
        self._began_s = time.monotonic()
        return self._file

    def end_period(self) -> None:
        """Close the current file if it is older than a period."""
        if self._file is not None and time.monotonic() - self._began_s >= self._period_s:
            self.close()

    def close(self) -> None:
        """Close the current file. An archiver may take it from now on."""
        if self._file is not None:
            self._file.close()
            self._file = None


class ClosedSpool:
    """A file that its writer has closed, or that a dead process has left. It is locked here."""

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        self._path = path
        self._file = file
        self.writer = path.stem.rpartition("-")[0]

    def __enter__(self) -> ClosedSpool:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()

    def messages(self) -> Iterator[SpooledMessage]:
        """Yield all messages. The last one may have been cut off; it was not acknowledged."""
        while len(header := self._file.read(_HEADER.size)) == _HEADER.size:
            size, is_delete, stored_ms, number, revision = _HEADER.unpack(header)
            value = self._file.read(size)
            if len(value) < size:
                return
            kind = DELETE if is_delete else PUT
            yield SpooledMessage(kind, stored_ms, number, revision, value)

    def count(self) -> int:
        """Return the number of messages, without reading their values."""
        found, end = 0, os.fstat(self._file.fileno()).st_size
        while len(header := self._file.read(_HEADER.size)) == _HEADER.size:
            found += self._file.seek(_HEADER.unpack(header)[0], os.SEEK_CUR) <= end
        return found

    def remove(self) -> None:
        """Remove the file: the archive has its rows."""
        self._path.unlink(missing_ok=True)


def closed_spools(archive: Path) -> Iterator[ClosedSpool]:
    """Yield the files that an archiver may take, each to be used in a `with` block."""
    folder = archive / FOLDER
    for path in sorted(folder.glob("*.log")) if folder.exists() else []:
        try:
            file = path.open("rb")
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            continue
        # Another archiver may have removed it before it was locked.
        if os.fstat(file.fileno()).st_nlink == 0:
            file.close()
            continue
        yield ClosedSpool(path, file)


def _write_whole(file: IO[bytes], data: bytes) -> None:
    """Write all bytes. Raise `OSError` if the disk takes only some of them."""
    if file.write(data) != len(data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def waiting_messages(archive: Path) -> int:
    """Return how many messages wait in the spool."""
    folder = archive / FOLDER
    count = 0
    for path in folder.glob("*.log") if folder.exists() else []:
        with suppress(FileNotFoundError), ClosedSpool(path, path.open("rb")) as spool:
            count += spool.count()
    return count
