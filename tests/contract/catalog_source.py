"""The source of a small catalog, and a function that waits until a backend has a revision."""

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


def wait_for_revision(backend: CatalogBackend, number: int) -> None:
    """Wait until this revision is the current one of a backend."""
    wait_for(
        lambda: backend.current().number == number,
        lambda: f"revision {number} is current (it is {backend.current()})",
    )
