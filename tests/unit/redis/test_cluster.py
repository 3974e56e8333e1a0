"""`ClusterClient`: an error reply to one key does not affect the replies to other keys."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import hiredis
import pytest

from kirana.redis import cluster
from kirana.redis.cluster import MISSING, ClusterClient
from kirana.redis.slots import SLOTS, key_slots

KEYS = [b"f:u.g:k1", b"f:u.g:k2", b"f:u.g:k3"]
MOVED_SLOT = key_slots(KEYS)[0]


class Cluster(ClusterClient):
    """A cluster whose node `a:1` always replies to the first key with the same error.

    Node `a:1` owns all slots. Every other node is down.
    """

    def __init__(self, error: str) -> None:
        super().__init__(SimpleNamespace(), "redis://x", 0.5)
        self._owners = ["a:1"] * SLOTS
        self._refreshed_at = float("inf")
        self._error = error

    async def _request(
        self, name: str, commands: Sequence[bytes], asking: bool, strings: bool, load: bytes
    ) -> Any:
        if name != "a:1":
            return cluster._NoReply(f"{name}: refused", retry=True)
        error = hiredis.ReplyError(self._error)
        return [error if command == KEYS[0] else b"v" for command in commands]

    async def _close_unused(self, owners: set[str]) -> None:
        pass


@pytest.mark.parametrize(
    "error", [f"MOVED {MOVED_SLOT} b:2", f"ASK {MOVED_SLOT} b:2", "NOSCRIPT no", "TRYAGAIN"]
)
async def test_a_command_that_is_always_sent_again_does_not_affect_others(error: str) -> None:
    call = await Cluster(error).call(KEYS, KEYS, within_s=5)
    assert call.replies == [MISSING, b"v", b"v"]
    assert list(call.missing) == [0]


async def test_any_other_error_is_returned_as_a_reply() -> None:
    call = await Cluster("WRONGTYPE no string").call(KEYS, KEYS, within_s=5)
    assert isinstance(call.replies[0], hiredis.ReplyError)
    assert list(call.missing) == []
