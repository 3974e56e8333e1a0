"""The feature stores that pass one suite; a new one adds its name here."""

from __future__ import annotations

import pytest

BACKENDS = (
    "lmdb",
    "memory",
    "redis 6.2",
    "redis 7",
    "redis tls",
    "redis cluster",
    "redis cluster tls",
    "sentinel",
    "sentinel tls",
)


def backends(*but: str) -> list[object]:
    """Return parameters for all stores except some; those that need a server are marked."""
    return [
        pytest.param(each, marks=() if each in ("lmdb", "memory") else pytest.mark.redis)
        for each in BACKENDS
        if each not in but
    ]
