"""Copies in the hot tier as bytes: the generation, followed by the row if there is one."""

from __future__ import annotations

from collections.abc import Sequence

from kirana import native


def copy_of(value: bytes | None, generation: bytes) -> bytes:
    """Return the copy of a row, or of the fact that there is no row."""
    return generation if value is None else generation + value


def rows_of(
    entries: Sequence[bytes | None], generation: bytes
) -> tuple[Sequence[bytes | None], list[int]]:
    """Return the rows in the copies of a generation, and the positions of all other entries.

    The row is None if the copy says that there is none, and for other entries. `entries` may be
    changed.
    """
    if native.COMPILED and isinstance(entries, native.replies.Values):
        return entries, entries.take_tagged(generation)
    missing = [
        i for i, entry in enumerate(entries) if not entry or not entry.startswith(generation)
    ]
    start = len(generation)
    rows = [entry[start:] or None if entry is not None else None for entry in entries]
    for position in missing:
        rows[position] = None
    return rows, missing
