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
    "cassandra",
    "tiers lmdb",
    "tiers cassandra",
)


def backends(*but: str) -> list[object]:
    """Return test parameters for all stores except `but`, marked with the server that they need."""
    return [pytest.param(name, marks=_marks(name)) for name in BACKENDS if name not in but]


def _marks(name: str) -> tuple[pytest.MarkDecorator, ...]:
    if name in ("lmdb", "memory"):
        return ()
    marks = []
    if "cassandra" in name:
        marks.append(pytest.mark.cassandra)
    if name != "cassandra":
        marks.append(pytest.mark.redis)
    return tuple(marks)
