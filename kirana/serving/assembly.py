"""Assembly of the parts of one process from its settings, over one shared catalog."""

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
from kirana.serving.checks import catalog_checks
from kirana.serving.parts import PARTS
from kirana.serving.settings import Settings
from kirana.serving.tables import store_tables
from kirana.urls import folder_of, scheme_of

P = TypeVar("P")
S = TypeVar("S", bound=BaseModel)


class SharedCatalog:
    """A catalog source that all parts of a process share.

    It keeps the catalog that was loaded last, so parts that load the same revision one after
    another get the same object. `backend` reads the catalog, and publishes changes to it.
    """

    def __init__(self, backend: CatalogBackend) -> None:
        self.backend = backend
        self._latest: Catalog | None = None
        self._lock = threading.Lock()

    def current(self) -> Revision:
        """Return the live revision, or `NO_REVISION` if nothing was published. May block.

        Raise `Unavailable` if the catalog has never answered.
        """
        return self.backend.current()

    def away_since(self) -> float | None:
        """Return since when (Unix seconds) the catalog can't be read; None if it can."""
        return self.backend.away_since()

    def load(self, revision: Revision) -> Catalog:
        """Return the catalog of a revision. Blocks unless the revision was the last one loaded.

        Raise `Unknown` if the revision does not exist, `CatalogError` if it is broken, or
        `Unavailable` if the catalog can't be read.
        """
        with self._lock:
            if self._latest is None or self._latest.revision != revision:
                self._latest = self.backend.load(revision)
            return self._latest

    def close(self) -> None:
        """Close the backend."""
        self.backend.close()


def open_catalog(settings: Settings) -> SharedCatalog:
    """Return the catalog that the settings name, for the parts of one process.

    Raise `ConfigurationError` if its URL is not the URL of a catalog.
    """
    return SharedCatalog(catalog_backend(settings))


def catalog_backend(
    settings: Settings,
    source: Path | None = None,
    *,
    open_models: bool = True,
    create_tables: bool = False,
) -> CatalogBackend:
    """Return the catalog backend that the settings name.

    `source` is the folder of YAML files that a ZooKeeper backend checks and publishes. A `dir://`
    backend publishes its own folder. Without `open_models`, model files are neither opened
    nor pinned. With `create_tables`, a publish makes the tables that stores lack; otherwise it
    refuses objects that need one.

    Raise `ConfigurationError` if the URL is not the URL of a catalog.
    """
    models = ModelFiles(settings.models) if open_models else None
    checks = catalog_checks(models, store_tables(settings, create=create_tables))
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
    """The parts of one process, each built on first use. Implements `Wiring`.

    `remote` holds clients of the parts that run in other processes, by name of the part. All other
    parts become local objects, which call the parts in `remote`. `actor` returns an actor of this
    deployment by its name.
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
        """Return the settings, typed as the class that a part declares."""
        assert isinstance(self._settings, kind)
        return self._settings

    def __getitem__(self, part: Part[P]) -> P:
        """Return a part: its client if it runs in another process, else a local object."""
        if part.name not in self._made:
            self._made[part.name] = part.build(self)
        return cast(P, self._made[part.name])

    def actor(self, name: str) -> Any:
        """Return an actor of this deployment.

        Raise `ConfigurationError` if this process is not a replica of Serve.
        """
        if self._actor is None:
            raise ConfigurationError(
                f"the actor '{name}' is available only in a replica of Ray Serve"
            )
        return self._actor(name)

    def on_close(self, close: Callable[[], Awaitable[None]]) -> None:
        """Register a function to await when the parts are closed, the last registered one first."""
        self._closing.append(close)

    def at_edge(self) -> Parts:
        """Return the parts that routes call. They must be prepared before a revision goes live."""
        return Parts(
            {part: self[part] for part in PARTS if part.at_edge and part.is_on(self._settings)}
        )

    async def close(self) -> None:
        """Close the local parts, by awaiting everything that they registered with `on_close`."""
        while self._closing:
            await self._closing.pop()()
