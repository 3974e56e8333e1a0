"""From settings to parts: each built from its local objects unless it is given, on one catalog."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

from pydantic import BaseModel

from kirana.catalog.directory import DirectoryCatalog
from kirana.catalog.publishing import CatalogBackend
from kirana.catalog.revisions import CatalogSource
from kirana.catalog.snapshot import Catalog
from kirana.catalog.zookeeper import ZookeeperCatalog
from kirana.errors import ConfigurationError
from kirana.metrics import Metrics
from kirana.models.files import ModelFiles
from kirana.part import Part, Parts
from kirana.revision import Revision
from kirana.serving.checks import checks_of
from kirana.serving.parts import PARTS
from kirana.serving.settings import Settings
from kirana.urls import folder_of, scheme_of

P = TypeVar("P")
S = TypeVar("S", bound=BaseModel)


class SharedCatalog:
    """Reads each revision once for all parts of a process; `backend` is where it is published."""

    def __init__(self, backend: CatalogBackend) -> None:
        self.backend = backend
        self._latest: Catalog | None = None
        self._lock = threading.Lock()

    def current(self) -> Revision:
        """See `CatalogSource`."""
        return self.backend.current()

    def away_since(self) -> float | None:
        """See `CatalogSource`."""
        return self.backend.away_since()

    def load(self, revision: Revision) -> Catalog:
        with self._lock:
            if self._latest is None or self._latest.revision != revision:
                self._latest = self.backend.load(revision)
            return self._latest

    def close(self) -> None:
        self.backend.close()


def open_catalog(settings: Settings) -> SharedCatalog:
    """Raises `ConfigurationError` if the URL names no catalog."""
    return SharedCatalog(catalog_backend(settings))


def catalog_backend(
    settings: Settings, source: Path | None = None, *, look_into_models: bool = True
) -> CatalogBackend:
    """Return what checks and publishes `source`; a catalog in a folder is its own source.

    Raises `ConfigurationError` if the URL names no backend of a catalog.
    """
    checks = checks_of(ModelFiles(settings.models) if look_into_models else None)
    kept = settings.kept_revisions
    scheme = scheme_of(settings.catalog)
    if scheme == "zk":
        return ZookeeperCatalog(settings.catalog, source, checks, kept=kept)
    if scheme != "dir":
        raise ConfigurationError(
            f"catalog: '{settings.catalog}' is not the URL of a catalog: use "
            "dir:///absolute/folder or zk://host:port/root",
            field="catalog",
        )
    folder = folder_of(settings.catalog, "dir", setting="catalog")
    return DirectoryCatalog(folder, checks, kept=kept)


class Assembly:
    """The parts of one process, each made when it is first asked for. Implements `Wiring`.

    `remote` holds those that run elsewhere, by their names; the others become local objects, which
    call what is in `remote` where they call that. `actor` finds an actor of this deployment.
    """

    def __init__(
        self,
        settings: Settings,
        source: CatalogSource,
        remote: Mapping[str, Any] | None = None,
        actor: Callable[[str], Any] | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        self.source = source
        self.metrics = metrics or Metrics()
        self._settings = settings
        self._made: dict[str, Any] = dict(remote or {})
        self._actor = actor
        self._closing: list[Callable[[], Awaitable[None]]] = []

    def settings(self, kind: type[S]) -> S:
        """See `Wiring`."""
        assert isinstance(self._settings, kind)
        return self._settings

    def __getitem__(self, part: Part[P]) -> P:
        """See `Wiring`."""
        if part.name not in self._made:
            self._made[part.name] = part.build(self)
        return cast(P, self._made[part.name])

    def actor(self, name: str) -> Any:
        """See `Wiring`."""
        if self._actor is None:
            raise ConfigurationError(f"the actor '{name}' needs Ray Serve, which runs no part here")
        return self._actor(name)

    def on_close(self, close: Callable[[], Awaitable[None]]) -> None:
        """See `Wiring`."""
        self._closing.append(close)

    def at_edge(self) -> Parts:
        """Return what the edge calls. Each is to be ready before a revision goes live."""
        return Parts({part: self[part] for part in PARTS if part.at_edge})

    async def close(self) -> None:
        """Close the stores that were opened here."""
        while self._closing:
            await self._closing.pop()()
