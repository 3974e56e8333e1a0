"""The checks of a catalog that need code from outside `kirana.catalog`.

`kirana.serving.checks` passes them in, so `kirana.catalog` does not import the engines.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

from kirana.catalog.items import Key
from kirana.catalog.objects import ModelObject

if TYPE_CHECKING:
    from kirana.catalog.snapshot import Catalog

Compile = Callable[[Any, "Catalog"], object]
"""A function that compiles an object of a catalog.

It raises `CatalogError` if the object is not valid. The problems have paths in the object.
"""


@dataclass(frozen=True, slots=True)
class Finding:
    """A finding about an object: a problem that prevents a publish (`wrong`), or a warning.

    `path` leads to the value in the object.
    """

    key: Key
    message: str
    path: str
    wrong: bool


class ModelStore(Protocol):
    """The files of models, and copies of them by digest.

    A model without `sha256` refers to the file at its path. A model with `sha256` refers to the
    copy with this digest.
    """

    def digest(self, model: ModelObject) -> str:
        """Return the digest of the bytes that a model would be published with.

        Raise `ConfigurationError` if there is no copy for the model's `sha256`, or, without
        `sha256`, if the files of the model can't be read.
        """

    def pin(self, catalog: str, revision: int, models: Iterable[ModelObject]) -> None:
        """Copy the files of a revision's models, so that later edits of the files do not affect it.

        Models without a digest are skipped. Raise `Conflict` if a file has changed since it was
        checked, and `Unavailable` if a file can't be copied.
        """

    def prune(self, catalog: str, oldest: int) -> None:
        """Remove the copies that are not used any more.

        `oldest` is the oldest revision of `catalog` that is kept. Copies that other catalogs use
        are kept, too.
        """


class Tables(Protocol):
    """The tables in which stores keep the rows of the catalog's objects."""

    def ensure(self, before: Catalog | None, after: Catalog) -> None:
        """Make sure that the objects of `after` have their tables.

        A publish calls this before `after` goes live. `before` is the live catalog, or None. Raise
        `Conflict` if a table is missing and this process may not make it, and `Unavailable` if a
        database does not answer.
        """


ModelCheck = Callable[["Catalog", Collection[Key]], list[Finding]]
"""A function that checks the model files that the given objects of a catalog use."""


@dataclass(frozen=True, slots=True)
class Checks:
    """The checks that a catalog runs when it validates and publishes objects.

    `compilers` are by kind. Each kind comes after the kinds that it builds on. Without `models`, a
    publish does not copy model files. Without `check_model`, it does not check them. Without
    `tables`, it does not look at the tables of stores.
    """

    compilers: Mapping[str, Compile] = field(default_factory=dict)
    models: ModelStore | None = None
    check_model: ModelCheck | None = None
    tables: Tables | None = None

    def of_published(self) -> Checks:
        """Return the checks for a published revision, which skip model files and tables."""
        return replace(self, models=None, check_model=None, tables=None)


NO_CHECKS = Checks()
"""No checks, for processes that only read feature groups and event types."""
