"""The methods that every part has, besides those of its own protocol."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from kirana.revision import Revision


@dataclass(frozen=True, slots=True)
class Health:
    """The health of a part. `reason` says why the part can't serve, and is None if it can.

    `details` are further fields of this part's report in `/healthz`.
    """

    reason: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


class Service(Protocol):
    """The methods that every part has, wherever it runs."""

    async def prepare(self, revision: Revision) -> None:
        """Load what requests on this revision need. Raise `Unavailable` if that fails."""

    async def health(self, revision: Revision) -> Health:
        """Check the stores and parts that this part depends on.

        If one of them does not answer, return a `Health` with the reason, or raise `Unavailable`.
        `/healthz` reports both in the same way.
        """
