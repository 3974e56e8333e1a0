"""A Lua script, and the commands that load and run it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from hashlib import sha1
from typing import Any

import hiredis

Argument = str | bytes | int

_pack: Callable[[tuple[Any, ...]], bytes] = hiredis.pack_command


class Script:
    """A Lua script that Redis runs by its SHA-1."""

    def __init__(self, source: str) -> None:
        self.source = source

    @cached_property
    def sha(self) -> str:
        """The SHA-1 of the source in hexadecimal, by which `EVALSHA` names the script."""
        return sha1(self.source.encode(), usedforsecurity=False).hexdigest()

    @cached_property
    def load(self) -> bytes:
        """The command that loads the script, as bytes to send."""
        return _pack(("SCRIPT", "LOAD", self.source))

    def run(self, keys: Sequence[bytes], arguments: Sequence[Argument]) -> bytes:
        """Return the command that runs the script, as bytes to send."""
        return _pack(("EVALSHA", self.sha, len(keys), *keys, *arguments))
