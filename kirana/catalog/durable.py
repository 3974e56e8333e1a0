"""Durable writes: after a crash, a file has either its old or its new content."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

WRITTEN_AT_ONCE = 1_024
"""The most buffers that one `os.writev` call takes on Linux."""


def write_durably(file: Path, *content: bytes) -> None:
    """Replace a file: write a new file beside it, sync the new file to disk, and rename it.

    Readers see either the old content or the new one. The byte strings in `content` are written
    one after the other. Raise `OSError` if the file can't be written.
    """
    new_file = file.with_name(f".{file.name}.{os.getpid()}")
    with new_file.open("wb", buffering=0) as opened:
        for start in range(0, len(content), WRITTEN_AT_ONCE):
            _write_all(opened.fileno(), content[start : start + WRITTEN_AT_ONCE])
        os.fsync(opened.fileno())
    new_file.rename(file)
    sync_folder(file.parent)


def _write_all(file: int, buffers: Sequence[bytes]) -> None:
    size = sum(map(len, buffers))
    written = os.writev(file, buffers)
    if written < size:
        # The call wrote only some of the bytes.
        rest = memoryview(b"".join(buffers))[written:]
        while len(rest):
            rest = rest[os.write(file, rest) :]


def sync_folder(folder: Path) -> None:
    """Sync a folder to disk, so that new, renamed and removed files in it survive a crash."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
