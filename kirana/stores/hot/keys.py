"""The keys of the hot tier, `hot:<group>:<key text>`, and what is stored there."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import chain

from kirana.stores.hot.base import HotRows
from kirana.stores.hot.copies import copy_of, rows_of
from kirana.stores.row_keys import prefixed_keys, split_by_group
from kirana.stores.rows import RowKeys


def hot_prefix(group: str) -> str:
    """Return the part of a key before the key text. `group` is the full name of the group."""
    return f"hot:{group}:"


def hot_rows(
    entries: Sequence[bytes | None],
    wanted: Sequence[RowKeys],
    generation: bytes,
    unanswered: Collection[int] = (),
) -> list[HotRows]:
    """Return the copies among the entries of all keys of `wanted`, one `HotRows` per group.

    `unanswered` are the positions of entries that could not be read.
    """
    values, missing = rows_of(entries, generation)
    away = set(unanswered)
    missing = [position for position in missing if position not in away] if away else missing
    results, start = [], 0
    for group_values in split_by_group(values, wanted):
        end = start + len(group_values)
        results.append(
            HotRows(
                group_values,
                [position - start for position in missing if start <= position < end],
                [position - start for position in unanswered if start <= position < end],
            )
        )
        start = end
    return results


def unreachable_rows(rows: RowKeys) -> HotRows:
    """Return the result for keys that can't be read."""
    return HotRows([None] * len(rows.keys), [], list(range(len(rows.keys))))


def hot_keys(wanted: Sequence[RowKeys]) -> list[bytes]:
    """Return the keys of several groups, group after group."""
    keys: list[bytes] = []
    for rows in wanted:
        keys += prefixed_keys(hot_prefix(rows.group), rows.keys)
    return keys


def fills(
    wanted: Sequence[RowKeys],
    values: Sequence[Sequence[bytes | None]],
    ttl_ms: Sequence[Sequence[int]],
    generation: bytes,
) -> list[tuple[bytes, bytes, int]]:
    """Return the key, the copy and the TTL of each row of several groups."""
    copies = (copy_of(value, generation) for group in values for value in group)
    ttls = chain.from_iterable(ttl_ms)
    return list(zip(hot_keys(wanted), copies, ttls, strict=True))
