"""What every part offers, wherever it runs, beside the methods of its own protocol."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from kirana.revision import Revision


@dataclass(frozen=True, slots=True)
class Health:
    """Whether a part can serve: `reason` says why not. `told` are plain values for people."""

    reason: str | None = None
    told: Mapping[str, Any] = field(default_factory=dict)


class Service(Protocol):
    async def prepare(self, revision: Revision) -> None:
        """Make a revision ready. Raises `Unavailable` if that can't be done."""

    async def health(self, revision: Revision) -> Health:
        """Check that what this part depends on answers. May raise `Unavailable` instead."""
