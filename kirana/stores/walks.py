"""Where a walk over the rows of an entity goes on, and what is refused as a cursor."""

from __future__ import annotations

from kirana.errors import InvalidInput
from kirana.stores.row_keys import entity_prefix


def walk_start(entity: str, cursor: str) -> tuple[bytes, bytes]:
    """Return what the keys of an entity begin with, and the last one that a walk has come to.

    For stores whose cursor is a key. Raises `InvalidInput` for what is no cursor of this walk.
    """
    prefix = entity_prefix(entity)
    if cursor and not cursor.startswith(prefix):
        raise no_cursor(cursor)
    return prefix.encode(), cursor.encode()


def scan_start(cursor: str) -> str:
    """Return where `SCAN` goes on. Raises `InvalidInput` for what is no cursor of Redis."""
    if cursor and not (cursor.isascii() and cursor.isdecimal() and int(cursor) < 1 << 64):
        raise no_cursor(cursor)
    return cursor or "0"


def no_cursor(cursor: str) -> InvalidInput:
    return InvalidInput(f"'{cursor}' is no cursor of this walk: begin it again", field="cursor")


def require_limit(limit: int) -> None:
    """Raise `InvalidInput` for a page without rows."""
    if limit < 1:
        raise InvalidInput(f"'limit' must be 1 or more, not {limit}", field="limit")
