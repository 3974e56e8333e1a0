"""The declaration of a part of Kirana, and the types that the declaration uses.

Placement, assembly, deployments, remotes, `/healthz`, the checks before a start, and some options
of commands are derived from these declarations. `kirana.serving.parts` lists all parts.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar, cast

from pydantic import BaseModel

from kirana.catalog.revisions import CatalogSource
from kirana.metrics import Metrics
from kirana.service import Service
from kirana.stores.tables import EntityTables

P = TypeVar("P")
S = TypeVar("S", bound=BaseModel)


OFF = "off"
"""The value of the setting of an optional store that is not used."""


@dataclass(frozen=True, slots=True)
class StoreSetting:
    """The setting that holds the URL of a store. A local Kirana uses LMDB by default.

    A store that is `optional` may be `OFF`, and is by default.
    `check` opens the store at a URL, and closes it again. It raises `ConfigurationError` with the
    setting as its field if the store can't be opened, or if it has a server that does not answer.
    """

    name: str
    what: str
    """The name of the store in messages, for example "feature store"."""
    check: Callable[[str], Awaitable[None]]
    tables: Callable[[str], EntityTables | None] | None = None
    """Returns the tables of the store at a URL, or None if such a store has no tables."""
    optional: bool = False


class Wiring(Protocol):
    """The dependencies that a part is built from: settings, parts, actors, catalog and metrics."""

    source: CatalogSource
    metrics: Metrics

    def settings(self, kind: type[S]) -> S:
        """Return the settings as an object of `kind`, the class that the part declares."""

    def __getitem__(self, part: Part[P]) -> P:
        """Return a part that this one calls: an object of this process, or a remote."""

    def actor(self, name: str) -> Any:
        """Return the actor with this name, which belongs to the deployment of this process.

        Arguments and results of its methods must be picklable. If the last argument is a
        `RequestContext`, its deadline limits the call.
        """

    def on_close(self, close: Callable[[], Awaitable[None]]) -> None:
        """Register `close`, which is called when the process ends."""


def _always(settings: object) -> bool:
    return True


@dataclass(frozen=True, slots=True, eq=False)
class Part(Generic[P]):
    """The declaration of a part whose protocol is `P`.

    The protocol extends `Service`; its other methods take a `RequestContext` as the last argument.
    A part that is spread is the Serve deployment named `deployment`. Without `deployment`, the part
    is always fused: an object in the replica of its caller. `calls` are the parts that `build`
    takes from the wiring.
    """

    name: str
    protocol: type[P]
    build: Callable[[Wiring], P]
    deployment: str | None = None
    calls: tuple[Part[Any], ...] = ()
    settings: type[BaseModel] | None = None
    stores: tuple[StoreSetting, ...] = ()
    at_edge: bool = True
    """Whether routes call the part.

    If they do, the edge prepares the part, and `/healthz` checks it. If they do not, the parts that
    call it prepare and check it.
    """
    is_on: Callable[[Any], bool] = _always
    """Returns whether a cluster with these settings has the part."""

    @property
    def methods(self) -> tuple[str, ...]:
        """The names of the methods that requests call: all but `prepare` and `health`."""
        names = (name for name in dir(self.protocol) if not name.startswith("_"))
        return tuple(name for name in names if name not in ("prepare", "health"))


class Parts:
    """A mapping from declarations to parts: objects of this process, or remotes.

    An iteration yields the name of each part, and the part.
    """

    def __init__(self, parts: Mapping[Part[Any], Any]) -> None:
        self._parts = dict(parts)

    def __getitem__(self, part: Part[P]) -> P:
        return cast(P, self._parts[part])

    def __contains__(self, part: object) -> bool:
        return part in self._parts

    def __iter__(self) -> Iterator[tuple[str, Service]]:
        for declaration, part in self._parts.items():
            yield declaration.name, part
