"""What handlers work with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from kirana.catalog.changes import CatalogPublisher
from kirana.catalog.revisions import CatalogSource, LiveRevision, Revisions
from kirana.catalog.snapshot import Catalog
from kirana.edge.selection import Selections
from kirana.part import Parts


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One replica's direct port."""

    replica: str
    url: str


class LiveEndpoints(Protocol):
    """The direct ports that take requests now."""

    def live(self) -> Sequence[Endpoint]:
        """Return them, this replica's own first."""


class NoEndpoints:
    """Implements `LiveEndpoints` where there are no direct ports."""

    def live(self) -> Sequence[Endpoint]:
        return ()


@dataclass(slots=True)
class Resources:
    """The parts, the catalog, and who publishes it; `publisher` is None where nobody may."""

    parts: Parts
    live: LiveRevision
    source: CatalogSource
    publisher: CatalogPublisher | None = None
    endpoints: LiveEndpoints = field(default_factory=NoEndpoints)
    catalogs: Revisions[Catalog] = field(init=False)
    selections: Revisions[Selections] = field(init=False)

    def __post_init__(self) -> None:
        self.catalogs = Revisions(self.source, lambda catalog: catalog)
        self.selections = Revisions(self.source, Selections)
