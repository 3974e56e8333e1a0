"""Redis commands as bytes to send."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import hiredis

from kirana import native

_pack: Callable[[tuple[Any, ...]], bytes] = hiredis.pack_command

Prefixed = Sequence[tuple[str, Sequence[str]]]
"""Keys as pairs of a prefix and texts: the prefix followed by each of its texts is a key."""

# The bytes before a key, by the size of the key: a line end, and a line with the size.
_HEADS = [b"\r\n$%d\r\n" % length for length in range(1024)]


def mget_command(keys: Prefixed) -> bytes:
    """Return an `MGET` command for all keys: each prefix followed by each of its texts."""
    if native.COMPILED:
        return native.keys.mget_command(
            [(prefix, texts if isinstance(texts, list) else list(texts)) for prefix, texts in keys]
        )
    flat = [f"{prefix}{text}".encode() for prefix, texts in keys for text in texts]
    heads = [_HEADS[n] if (n := len(key)) < len(_HEADS) else b"\r\n$%d\r\n" % n for key in flat]
    words = b"".join(chain.from_iterable(zip(heads, flat, strict=True)))
    return b"*%d\r\n$4\r\nMGET%b\r\n" % (len(flat) + 1, words)


def get_command(key: bytes) -> bytes:
    """Return a `GET` command. A cluster needs one per key: an `MGET` may use only one slot."""
    return b"*2\r\n$3\r\nGET\r\n$%d\r\n%b\r\n" % (len(key), key)


def delete_command(keys: Sequence[bytes]) -> bytes:
    """Return an `UNLINK` command. The reply to it is the number of keys that existed."""
    return _pack(("UNLINK", *keys))


def scan_command(cursor: str, pattern: str, count: int) -> bytes:
    """Return a `SCAN` command for keys that match `pattern` and whose values are strings.

    `count` is the approximate number of keys that the server examines.
    """
    return _pack(("SCAN", cursor, "MATCH", pattern, "COUNT", count, "TYPE", "string"))
