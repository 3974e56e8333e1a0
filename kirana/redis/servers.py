"""What a Redis server says about itself: which process it is, and what time it has."""

from __future__ import annotations

from collections.abc import Sequence

INFO = b"*1\r\n$4\r\nINFO\r\n"
DBSIZE = b"*1\r\n$6\r\nDBSIZE\r\n"
TIME = b"*1\r\n$4\r\nTIME\r\n"

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
