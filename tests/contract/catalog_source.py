"""A small catalog as its source, and waiting until a backend has heard of a revision."""

from __future__ import annotations

from pathlib import Path

from kirana.catalog.publishing import CatalogBackend
from tests.waiting import wait_for

GROUP = """
kind: entity
name: product
keys: [{{name: product_id}}]
---
kind: feature_group
name: product.stats
ttl: 7d
features: [{features}]
"""
CLICKS = "{name: clicks, dtype: int32}"
CTR = "{name: ctr, dtype: float32, default: 0.5}"
ENTITY = {"kind": "entity", "name": "user", "keys": [{"name": "user_id"}]}


def write(folder: Path, *features: str) -> None:
    (folder / "catalog.yaml").write_text(GROUP.format(features=", ".join(features)))


def seen(backend: CatalogBackend, number: int) -> None:
    """Wait until a backend has heard of a revision."""
    wait_for(lambda: backend.current().number == number, lambda: f"{backend.current()} is {number}")
