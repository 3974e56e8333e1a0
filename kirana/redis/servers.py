"""What a Redis server says about itself: which process it is, and what time it has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import hiredis

_pack: Callable[[tuple[Any, ...]], bytes] = hiredis.pack_command

INFO = b"*1\r\n$4\r\nINFO\r\n"
TIME = b"*1\r\n$4\r\nTIME\r\n"

PERSISTENCE = ("appendonly", "appendfsync", "save")
"""The settings that decide what survives the end of a server."""

_FIELDS = ("run_id", "master_replid")


def identity_of(info: bytes) -> str:
    """Return the identity of the server that replied to `INFO`.

    `run_id` changes when the server restarts, `master_replid` when a replica becomes the master.
    A server that reports neither has the identity ":".
    """
    lines = (line.partition(":") for line in info.decode(errors="replace").splitlines())
    values = {name: value for name, _, value in lines if name in _FIELDS}
    return ":".join(values.get(name, "") for name in _FIELDS)


def seconds_of(time: Sequence[bytes]) -> float:
    """Return the Unix seconds in a reply to `TIME`."""
    seconds, microseconds = time
    return int(seconds) + int(microseconds) / 1e6


def config_command(name: str) -> bytes:
    """Return the command that asks for a setting."""
    return _pack(("CONFIG", "GET", name))


def setting_of(reply: Any) -> str:
    """Return the value in a reply to `config_command`; "" if there is no such setting."""
    values = list(reply.values()) if isinstance(reply, dict) else reply[1::2]
    return values[0].decode() if values else ""
