"""Commands follow slots that move; what no node answers is away, and nothing else is."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import hiredis
import pytest

from kirana.redis import cluster
from kirana.redis.cluster import AWAY, ClusterClient
from kirana.redis.slots import SLOTS, key_slots

KEYS = [b"f:u.g:k1", b"f:u.g:k2", b"f:u.g:k3"]
MOVED_SLOT = key_slots(KEYS)[0]


class Cluster(ClusterClient):
    """A cluster whose node `a:1` says that the slot of the first key is elsewhere."""

    def __init__(self, redirection: str) -> None:
        super().__init__(SimpleNamespace(), "redis://x", 0.5)
        self._owners = ["a:1"] * SLOTS
        self._looked_at = float("inf")
        self._redirection = redirection

    async def _ask(
        self, name: str, commands: Sequence[bytes], asking: bool, strings: bool, load: bytes
    ) -> Any:
        if name != "a:1":
            return cluster._Lost(f"{name}: refused", tried=True)
        answer = hiredis.ReplyError(self._redirection)
        return [answer if command == KEYS[0] else b"v" for command in commands]

    async def _let_go(self, owners: set[str]) -> None:
        pass


@pytest.mark.parametrize(
    "redirection", [f"MOVED {MOVED_SLOT} b:2", f"ASK {MOVED_SLOT} b:2", "NOSCRIPT no", "TRYAGAIN"]
)
async def test_one_slot_that_moves_to_a_node_that_is_away_leaves_the_others(
    redirection: str,
) -> None:
    call = await Cluster(redirection).call(KEYS, KEYS, within_s=5)
    assert call.answers == [AWAY, b"v", b"v"]
    assert list(call.away) == [0]


async def test_what_a_node_refuses_stays_its_answer() -> None:
    call = await Cluster("WRONGTYPE no string").call(KEYS, KEYS, within_s=5)
    assert isinstance(call.answers[0], hiredis.ReplyError)
    assert list(call.away) == []
