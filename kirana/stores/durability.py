"""What an acknowledged write is worth in each database, in words for `kirana doctor`."""

from __future__ import annotations

from typing import NamedTuple


class Durability(NamedTuple):
    """What happens to an acknowledged write. `safe` is False if the end of a process loses it."""

    text: str
    safe: bool


ON_DISK = Durability("an acknowledged write is on disk", True)
IN_PROCESS = Durability("rows are lost when the replica ends", False)


def of_redis(name: str, appendonly: str, fsync: str, save: str) -> Durability:
    """Return the durability of Redis, from its settings `appendonly`, `appendfsync` and `save`."""
    if appendonly == "yes":
        if fsync == "always":
            return ON_DISK
        lost = "up to a second of" if fsync == "everysec" else "an unknown number of"
        return Durability(f"{name} loses {lost} acknowledged writes with its machine", True)
    if save:
        return Durability(
            f"{name} loses all writes since its last snapshot when its process ends: set "
            "'appendonly yes', or put it before Cassandra as the hot tier",
            False,
        )
    return Durability(
        f"{name} loses all rows when its process ends: set 'appendonly yes', or put it before "
        "Cassandra as the hot tier",
        False,
    )


def of_cassandra(name: str, sync: str, copies: int) -> Durability:
    """Return the durability of Cassandra, from `commitlog_sync` and the copies of each row.

    `sync` is empty if it is not known.
    """
    held = f"{name} has {copies} {'copy' if copies == 1 else 'copies'} of each row"
    if sync == "periodic" and copies == 1:
        return Durability(
            f"{held} and commitlog_sync: periodic: it loses the last acknowledged writes if its "
            "process is killed, and up to 10 s of them (commitlog_sync_period) with its machine. "
            "Use three copies, or commitlog_sync: group",
            False,
        )
    return Durability(f"{held}, commitlog_sync: {sync or 'unknown'}", copies > 1 or bool(sync))
