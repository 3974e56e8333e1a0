"""What a part of Kirana declares of itself, once.

Placement, assembly, deployments, remotes, health, checks and options of commands come from it. The
table of all parts is `kirana.serving.parts`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar, cast

from pydantic import BaseModel

from kirana.catalog.revisions import CatalogSource
from kirana.metrics import Metrics
from kirana.service import Service

P = TypeVar("P")
S = TypeVar("S", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class StoreSetting:
    """The setting that holds the URL of a store. In a catalog directory it is LMDB by default.

    `check` opens what a URL names and asks it; it raises `ConfigurationError` with the setting.
    """

    name: str
    what: str
    """For people: "feature store"."""
    check: Callable[[str], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Actor:
    """An actor that the deployment of its part owns: Serve starts it, and restarts it when it dies.

    `build` makes the object that runs in it; its methods are coroutines. It must not wait for a
    server: replicas start only when their actors are ready. `options` are those of a Ray actor.
    """

    name: str
    build: Callable[[Wiring], object]
    options: Mapping[str, Any] = field(default_factory=dict)


class Wiring(Protocol):
    """What a part is built from."""

    source: CatalogSource
    metrics: Metrics

    def settings(self, kind: type[S]) -> S:
        """Return the settings that a part declared."""

    def __getitem__(self, part: Part[P]) -> P:
        """Return a part that is called: an object of this process, or a remote."""

    def actor(self, name: str) -> Any:
        """Return an actor of this deployment. Its methods take and return what can be pickled; a
        `RequestContext` at the end brings its deadline along.
        """

    def on_close(self, close: Callable[[], Awaitable[None]]) -> None:
        """Call `close` when the process ends."""


@dataclass(frozen=True, slots=True, eq=False)
class Part(Generic[P]):
    """One part. `P` is its protocol: `Service`, and methods that end in a `RequestContext`.

    It is spread as the Serve deployment of its name; without one it is an object in the replica of
    whoever calls it. Its `actors` belong to the deployment that has the object. `calls` are the
    parts that `build` asks the wiring for.
    """

    name: str
    protocol: type[P]
    build: Callable[[Wiring], P]
    deployment: str | None = None
    calls: tuple[Part[Any], ...] = ()
    settings: type[BaseModel] | None = None
    stores: tuple[StoreSetting, ...] = ()
    actors: tuple[Actor, ...] = ()
    at_edge: bool = True
    """Whether routes call it: then the edge prepares it, and `/healthz` asks it. Of another one
    those that call it do so.
    """

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods that requests call."""
        every = (name for name in dir(self.protocol) if not name.startswith("_"))
        return tuple(name for name in every if name not in ("prepare", "health"))


class Parts:
    """Parts by their declarations: objects of this process, or remotes."""

    def __init__(self, found: Mapping[Part[Any], Any]) -> None:
        self._found = dict(found)

    def __getitem__(self, part: Part[P]) -> P:
        return cast(P, self._found[part])

    def __iter__(self) -> Iterator[tuple[str, Service]]:
        for part, found in self._found.items():
            yield part.name, found
