"""Stamps of files and digests of contents, which show whether something has changed."""

from __future__ import annotations

import os
from hashlib import blake2b
from pathlib import Path

Stamp = tuple[int, ...]
"""The inode, size, mtime and ctime of a file, or () if the file can't be examined.

A program that overwrites a file can restore its mtime, but not its ctime.
"""


def stamp_of(file: Path) -> Stamp:
    """Return the stamp of a file, or () if the file can't be examined."""
    try:
        return stamp_of_stat(file.stat())
    except OSError:
        return ()


def stamp_of_stat(stat: os.stat_result) -> Stamp:
    """Return the stamp of a file from its `stat` result."""
    return (stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)


def content_digest(content: bytes) -> str:
    """Return the BLAKE2b digest of `content`: 32 hexadecimal digits."""
    return blake2b(content, digest_size=16).hexdigest()
