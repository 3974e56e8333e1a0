"""Waiting for what a server does in its own time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

TIMEOUT_S = 180.0
"""Longer than a busy machine takes: who waits goes on as soon as it can."""


def wait_for(get: Callable[[], T], what: str, *, timeout_s: float = TIMEOUT_S) -> T:
    """Return what `get` returns as soon as that is true."""
    deadline = time.monotonic() + timeout_s
    while not (found := get()):
        assert time.monotonic() < deadline, f"not in {timeout_s:.0f} s: {what}"
        time.sleep(0.1)
    return found
