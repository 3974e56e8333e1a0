"""Check the cursor and the page size of a walk over the rows of an entity."""

from __future__ import annotations

from kirana.errors import InvalidInput
from kirana.stores.row_keys import entity_prefix


def walk_start(entity: str, cursor: str) -> tuple[bytes, bytes]:
    """Return the prefix of an entity's keys, and the key after which the walk continues.

    For stores whose cursor is the last key of the previous page. The key is empty for the first
    page. Raise `InvalidInput` if `cursor` does not belong to this walk.
    """
    prefix = entity_prefix(entity)
    if cursor and not cursor.startswith(prefix):
        raise invalid_cursor(cursor)
    return prefix.encode(), cursor.encode()


def scan_start(cursor: str) -> str:
    """Return the cursor for the next `SCAN` of Redis: "0" for the first page.

    Raise `InvalidInput` if `cursor` is not a decimal number of at most 64 bits.
    """
    if cursor and not (cursor.isascii() and cursor.isdecimal() and int(cursor) < 1 << 64):
        raise invalid_cursor(cursor)
    return cursor or "0"


def invalid_cursor(cursor: str) -> InvalidInput:
    """Return the error for a cursor that does not belong to this walk."""
    return InvalidInput(
        f"'{cursor}' is not a cursor of this walk: start the walk again", field="cursor"
    )


def require_limit(limit: int) -> None:
    """Raise `InvalidInput` if `limit`, the number of rows per page, is below 1."""
    if limit < 1:
        raise InvalidInput(f"'limit' must be 1 or more, not {limit}", field="limit")
