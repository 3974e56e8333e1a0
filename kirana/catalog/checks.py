"""What a catalog is checked with, handed in by what assembles a process: it knows no engine."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

from kirana.catalog.items import Key
from kirana.catalog.objects import ModelObject

if TYPE_CHECKING:
    from kirana.catalog.snapshot import Catalog

Compile = Callable[[Any, "Catalog"], object]
"""Turn an object into what runs. Raises `CatalogError` with paths in the object."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that was found about an object: a `wrong` one must not go live."""

    key: Key
    message: str
    path: str
    wrong: bool


class ModelStore(Protocol):
    """A model without `sha256` is the file at its path, one with it the copy of that digest."""

    def digest(self, model: ModelObject) -> str:
        """Return the digest of the bytes that a model would be published with.

        Raises `ConfigurationError` if its file is missing, or its digest names a copy that is
        gone.
        """

    def pin(self, catalog: str, revision: int, models: Iterable[ModelObject]) -> None:
        """Copy what the revision names, so that its bytes stay what they are.

        Raises `Conflict` if a file is not any more what it was when it was checked, `Unavailable`
        if it can't be copied.
        """

    def prune(self, catalog: str, oldest: int) -> None:
        """Remove the copies that no revision from `oldest` on names, nor another catalog."""


LookInto = Callable[["Catalog", Collection[Key]], list[Finding]]
"""Look into the models behind some objects of a catalog that was compiled."""


@dataclass(frozen=True, slots=True)
class Checks:
    """`compilers` are by kind, in the order in which the kinds build on one another.

    Without `models` the files behind models are neither looked into nor pinned.
    """

    compilers: Mapping[str, Compile] = field(default_factory=dict)
    models: ModelStore | None = None
    look_into: LookInto | None = None

    def of_published(self) -> Checks:
        """Return the checks of a revision that was published: its models are pinned already."""
        return replace(self, models=None, look_into=None)


NO_CHECKS = Checks()
"""For those who read feature groups and event types alone: nothing that runs is compiled."""
