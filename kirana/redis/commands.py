"""Commands of Redis as the bytes that go over the wire."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import hiredis

from kirana import native

_pack: Callable[[tuple[Any, ...]], bytes] = hiredis.pack_command

Prefixed = Sequence[tuple[str, Sequence[str]]]
"""Prefixes, each with the texts that stand after it in a key."""

_HEADS = [b"\r\n$%d\r\n" % length for length in range(1024)]


def mget_command(keys: Prefixed) -> bytes:
    """Return `MGET` of keys."""
    if native.COMPILED:
        return native.keys.mget_command(
            [(prefix, each if isinstance(each, list) else list(each)) for prefix, each in keys]
        )
    flat = [f"{prefix}{text}".encode() for prefix, texts in keys for text in texts]
    heads = [_HEADS[n] if (n := len(key)) < len(_HEADS) else b"\r\n$%d\r\n" % n for key in flat]
    words = b"".join(chain.from_iterable(zip(heads, flat, strict=True)))
    return b"*%d\r\n$4\r\nMGET%b\r\n" % (len(flat) + 1, words)


def get_command(key: bytes) -> bytes:
    """Return `GET` of a key, for a cluster: its keys are of many slots."""
    return b"*2\r\n$3\r\nGET\r\n$%d\r\n%b\r\n" % (len(key), key)


def delete_command(keys: Sequence[bytes]) -> bytes:
    """Return `UNLINK` of keys, which answers with how many were there."""
    return _pack(("UNLINK", *keys))


def scan_command(cursor: str, pattern: str, count: int) -> bytes:
    """Return `SCAN` over strings whose keys match a pattern."""
    return _pack(("SCAN", cursor, "MATCH", pattern, "COUNT", count, "TYPE", "string"))
