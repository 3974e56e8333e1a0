"""Commands for a cluster, and the replies to them that have arrived."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

MISSING = object()
"""Stands for a final reply that has not arrived."""


@dataclass(slots=True)
class ClusterCall:
    """Commands with one key each, and their replies.

    `slots` holds one slot per key. `strings` is True if all replies are strings. `load` is the
    command that loads the script of the commands, empty if they run none. `replies` holds the final
    reply to each command, `MISSING` until it has arrived.

    `todo` holds the positions of the commands to send in the next round. Its keys are pairs: the
    name of the node, and whether to send `ASKING` before each command. `unanswered` holds commands
    of this round to which a node gave no reply, or a temporary error: the position of the command
    and the name of the node. `reason` is the latest reason for a missing reply.
    """

    commands: Sequence[bytes]
    slots: Sequence[int]
    strings: bool
    load: bytes
    replies: list[Any]
    todo: dict[tuple[str, bool], list[int]]
    unanswered: list[tuple[int, str]] = field(default_factory=list)
    reason: str = "the slots moved during each attempt"
    moved: bool = False
    """Whether a node replied that a slot now belongs to another node."""

    @property
    def missing(self) -> list[int]:
        """The positions of the commands without a final reply."""
        return [position for position, reply in enumerate(self.replies) if reply is MISSING]
