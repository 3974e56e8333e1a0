"""Keys of rows in the databases: `f:<entity>.<group>:<key text>`, in UTF-8."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress

from kirana import native
from kirana.ragged import cut
from kirana.stores.rows import RowBlock, RowKeys, WalkedRow


def key_prefix(group: str) -> str:
    """Return the part of a row's key before the key text. `group` is the full name of the group."""
    return f"f:{group}:"


def entity_prefix(entity: str) -> str:
    """Return the prefix of the keys of all rows of an entity, and of no other rows."""
    return f"f:{entity}."


def row_keys(rows: RowKeys) -> list[bytes]:
    """Return one key per row."""
    return prefixed_keys(key_prefix(rows.group), rows.keys)


def prefixed_keys(prefix: str, keys: Sequence[str]) -> list[bytes]:
    """Return a prefix followed by each of the key texts."""
    if native.COMPILED:
        return native.keys.row_keys(prefix, keys if isinstance(keys, list) else list(keys))
    # One `encode` for all keys is faster than one per key. If a key text contains NUL, or if there
    # are no keys, `split` returns more parts than there are keys.
    joined = (prefix + f"\0{prefix}".join(keys)).encode()
    encoded = joined.split(b"\0")
    if len(encoded) == len(keys):
        return encoded
    return [f"{prefix}{key}".encode() for key in keys]


def all_row_keys(wanted: Iterable[RowKeys]) -> list[bytes]:
    """Return the keys of the rows of several groups, group after group."""
    keys: list[bytes] = []
    for rows in wanted:
        keys += row_keys(rows)
    return keys


def block_keys(block: RowBlock) -> list[bytes]:
    """Return one key per row of a block."""
    prefix = key_prefix(block.group).encode()
    return [prefix + key for key in cut(block.keys, block.key_ends)]


def decoded_keys(keys: Iterable[bytes]) -> list[str]:
    """Return keys as text. Skip keys that are not UTF-8, because they are not from Kirana."""
    texts = []
    for key in keys:
        with suppress(UnicodeDecodeError):
            texts.append(key.decode())
    return texts


def walked_rows(keys: Iterable[str], values: Iterable[bytes | None]) -> list[WalkedRow]:
    """Return the rows with these keys and values.

    Skip rows whose value is None: they were removed after the walk listed their keys.
    """
    rows = []
    for key, value in zip(keys, values, strict=True):
        if value is not None:
            group, _, key_text = key.removeprefix("f:").partition(":")
            rows.append(WalkedRow(group, key_text, value))
    return rows


def split_by_group(
    values: Sequence[bytes | None], wanted: Sequence[RowKeys]
) -> list[Sequence[bytes | None]]:
    """Split the values of all rows of `wanted`, in order, into one sequence per group."""
    if len(wanted) == 1:
        return [values]
    groups, start = [], 0
    for rows in wanted:
        groups.append(values[start : start + len(rows.keys)])
        start += len(rows.keys)
    return groups
