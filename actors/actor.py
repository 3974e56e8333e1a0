"""The declaration of actors, and the protocol of their objects."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from kirana.part import Part, Wiring


@runtime_checkable
class Running(Protocol):
    """The object of an actor that works by itself, and not only when it is called."""

    async def run(self) -> None:
        """Work for the whole life of the actor. If this ends, the actor is started again."""


@dataclass(frozen=True, slots=True)
class Actors:
    """Actors of one kind that a part has. Serve starts them, and restarts each one that dies.

    They belong to the deployment that has the object of the part, which calls them by `names`.
    `build` returns the object that runs in an actor. The methods of this object are coroutines.
    `build` must not wait for a server, because replicas start only when their actors are ready.
    `options` are the options of the Ray actors.
    """

    part: Part[Any]
    build: Callable[[Wiring], object]
    names: Callable[[Any], Sequence[str]]
    """Returns the name of each actor for the settings of the cluster."""
    options: Mapping[str, Any] = field(default_factory=dict)
