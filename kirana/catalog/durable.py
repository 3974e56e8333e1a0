"""Files that are whole after a crash: the old one or the new one."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

WRITTEN_AT_ONCE = 1_024
"""The most that a call of the system takes."""


def write_durably(file: Path, *content: bytes) -> None:
    """Write beside, sync, rename: a reader sees the old file or the new one.

    Of a large file the parts are not joined, and other threads run while they are written.
    """
    beside = file.with_name(f".{file.name}.{os.getpid()}")
    with beside.open("wb", buffering=0) as opened:
        for at in range(0, len(content), WRITTEN_AT_ONCE):
            _write_all(opened.fileno(), content[at : at + WRITTEN_AT_ONCE])
        os.fsync(opened.fileno())
    beside.rename(file)
    sync_folder(file.parent)


def _write_all(file: int, parts: Sequence[bytes]) -> None:
    left = sum(map(len, parts))
    done = os.writev(file, parts)
    if done < left:
        # the file system took a part of it
        rest = memoryview(b"".join(parts))[done:]
        while len(rest):
            rest = rest[os.write(file, rest) :]


def sync_folder(folder: Path) -> None:
    """Make durable which files a folder has."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
