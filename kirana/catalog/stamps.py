"""What tells a file, or a content, from another one."""

from __future__ import annotations

import os
from hashlib import blake2b
from pathlib import Path

Stamp = tuple[int, ...]
"""Inode, size, mtime and ctime of a file, empty if it is not there.

An overwrite can restore the mtime, but not the ctime.
"""


def stamp_of(file: Path) -> Stamp:
    """Return what differs once a file was changed."""
    try:
        return stamp_in(file.stat())
    except OSError:
        return ()


def stamp_in(stat: os.stat_result) -> Stamp:
    return (stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)


def content_digest(content: bytes) -> str:
    return blake2b(content, digest_size=16).hexdigest()
