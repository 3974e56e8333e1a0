"""The feature stores that the contract tests run on. A new store is added here."""

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
    """Return test parameters for all stores except `but`. Stores on Redis are marked `redis`."""
    return [
        pytest.param(name, marks=() if name in ("lmdb", "memory") else pytest.mark.redis)
        for name in BACKENDS
        if name not in but
    ]
