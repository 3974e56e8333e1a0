"""The `HotTier` protocol, and the states that a key can have in a hot tier.

A key of the hot tier has no entry, or one of these:

    a copy     the generation (8 bytes) and the row, or the generation alone if there is no row
    a lease    a reader reads the row from the durable store now, and may then store a copy
    a mark     writers that are named in it are writing the row to the durable store now

Only a copy answers reads. A reader that finds no copy takes a lease before it reads the durable
store. Its copy is stored only if the key still has this lease. A writer marks the key before it
writes to the durable store, which removes a copy or a lease, and removes its mark afterwards. So no
copy can be stored whose read began before a write that was acknowledged.

Leases and marks expire, because the process that has made them may have been killed. What is right
never depends on a clock: if they expire too early, a copy is not stored, or is removed once more.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from kirana.stores.rows import RowKeys

TOKEN_BYTES = 8

LEASE_MS = 10_000
"""How long a lease lasts. A reader whose lease has expired can't store its copies."""


@dataclass(slots=True)
class HotRows:
    """The copies of one `RowKeys`.

    `values` has one value per key: None if there is no row, or no copy. `missing` has the positions
    without a copy, and `unreachable` those that could not be read.
    """

    values: Sequence[bytes | None]
    missing: list[int]
    unreachable: list[int]


class HotTier(Protocol):
    """A store of copies. Methods raise `Unavailable` if a server does not answer.

    Except in `read`, a server that does not answer may have done what it was told. A call is
    not atomic, but what it does to each key is.
    """

    name: str

    async def read(self, wanted: Sequence[RowKeys], generation: bytes) -> list[HotRows]:
        """Return the copies of a generation. Nothing is raised for keys that can't be read."""

    async def lease(self, wanted: Sequence[RowKeys], token: bytes, generation: bytes) -> None:
        """Take a lease on each key without a copy, a lease or a mark.

        A copy of a different generation does not count.
        """

    async def fill(
        self,
        wanted: Sequence[RowKeys],
        values: Sequence[Sequence[bytes | None]],
        ttl_ms: Sequence[Sequence[int]],
        token: bytes,
        generation: bytes,
    ) -> int:
        """Store copies on the keys that have the lease `token`. Return how many were stored.

        `values` and `ttl_ms` have one entry per entry of `wanted`. A copy expires after its TTL.
        """

    async def mark(self, rows: RowKeys, token: bytes, life_ms: int) -> None:
        """Remove copies and leases, and mark the keys with the token of a writer."""

    async def unmark(self, rows: RowKeys, token: bytes) -> None:
        """Remove copies, leases and the mark of a writer. The marks of other writers stay."""

    async def servers(self) -> list[str]:
        """Return the identity of each server that stores copies and answers.

        The identity changes when a server restarts or a replica takes its place. Raise
        `Unavailable` if no server answers.
        """

    def health(self) -> dict[str, Any]:
        """Return the state of the tier for health reports, in types that JSON supports."""

    async def close(self) -> None:
        """Close the connections. No-op if already closed."""


def new_token() -> bytes:
    """Return a token that no other call has returned."""
    return os.urandom(TOKEN_BYTES)
