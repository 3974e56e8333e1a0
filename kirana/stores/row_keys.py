"""The key of a row where keys are flat bytes: `f:<entity>.<group>:<key text>` in every store."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress

from kirana import native
from kirana.ragged import cut
from kirana.stores.rows import RowBlock, RowKeys, WalkedRow


def key_prefix(group: str) -> str:
    """Return what stands before the key text of a group's rows."""
    return f"f:{group}:"


def entity_prefix(entity: str) -> str:
    """Return what the keys of all rows of an entity begin with."""
    return f"f:{entity}."


def row_keys(rows: RowKeys) -> list[bytes]:
    """Return the flat keys of rows."""
    prefix, keys = key_prefix(rows.group), rows.keys
    if native.COMPILED:
        return native.keys.row_keys(prefix, keys if isinstance(keys, list) else list(keys))
    together = (prefix + f"\0{prefix}".join(keys)).encode()
    found = together.split(b"\0")
    if len(found) == len(keys):
        return found
    return [f"{prefix}{key}".encode() for key in keys]


def all_row_keys(wanted: Iterable[RowKeys]) -> list[bytes]:
    """Return the flat keys of rows of several groups, one group after the other."""
    found: list[bytes] = []
    for each in wanted:
        found += row_keys(each)
    return found


def block_keys(block: RowBlock) -> list[bytes]:
    """Return the flat keys of a block's rows."""
    prefix = key_prefix(block.group).encode()
    return [prefix + key for key in cut(block.keys, block.key_ends)]


def readable(keys: Iterable[bytes]) -> list[str]:
    """Return flat keys as text, without those that are none: no row of ours has such a key."""
    found = []
    for key in keys:
        with suppress(UnicodeDecodeError):
            found.append(key.decode())
    return found


def walked_rows(keys: Iterable[str], values: Iterable[bytes | None]) -> list[WalkedRow]:
    """Return rows by their flat keys, without those that have no value any more."""
    rows = []
    for key, value in zip(keys, values, strict=True):
        if value is not None:
            group, _, text = key.removeprefix("f:").partition(":")
            rows.append(WalkedRow(group, text, value))
    return rows


def shared_out(
    values: Sequence[bytes | None], wanted: Sequence[RowKeys]
) -> list[Sequence[bytes | None]]:
    """Return the values of each group, where they come one group after the other."""
    if len(wanted) == 1:
        return [values]
    found, start = [], 0
    for each in wanted:
        found.append(values[start : start + len(each.keys)])
        start += len(each.keys)
    return found
