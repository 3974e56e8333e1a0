"""Objects that handlers use: the parts, the catalog and the list of direct ports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from kirana.catalog.changes import CatalogPublisher
from kirana.catalog.revisions import CatalogSource, LiveRevision, Revisions
from kirana.catalog.snapshot import Catalog
from kirana.edge.probes import Probes
from kirana.edge.selection import Selections
from kirana.features.part import FEATURES
from kirana.features.source import FeatureSink
from kirana.part import Parts
from kirana.streams.part import STREAMS


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The direct port of one replica."""

    replica: str
    url: str


class LiveEndpoints(Protocol):
    """A list of the direct ports that accept requests."""

    def live(self) -> Sequence[Endpoint]:
        """Return the live direct ports, this replica's own first."""


class NoEndpoints:
    """Implements `LiveEndpoints` with an empty list."""

    def live(self) -> Sequence[Endpoint]:
        """Return an empty sequence."""
        return ()


@dataclass(slots=True)
class Resources:
    """Everything that handlers use.

    `catalogs` and `selections` are built from the revisions of `source` when needed. Without a
    `publisher`, the catalog is read-only.
    """

    parts: Parts
    live: LiveRevision
    source: CatalogSource
    publisher: CatalogPublisher | None = None
    endpoints: LiveEndpoints = field(default_factory=NoEndpoints)
    probes: Probes = field(init=False)
    catalogs: Revisions[Catalog] = field(init=False)
    selections: Revisions[Selections] = field(init=False)

    @property
    def sink(self) -> FeatureSink:
        """The way that writes take: through the feature stream, if the cluster has one."""
        return self.parts[STREAMS] if STREAMS in self.parts else self.parts[FEATURES]

    def __post_init__(self) -> None:
        self.probes = Probes(self.parts, self.live)
        self.catalogs = Revisions(self.source, lambda catalog: catalog)
        self.selections = Revisions(self.source, Selections)
