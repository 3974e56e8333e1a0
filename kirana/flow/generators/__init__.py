"""The candidate generators, by the name that `generator:` has in the catalog.

To add one, add a module and an entry in `GENERATORS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from kirana.catalog.objects import CandidateGeneratorObject
from kirana.catalog.snapshot import Catalog
from kirana.errors import CatalogError, Problem, did_you_mean
from kirana.flow.generators.base import Generator
from kirana.flow.generators.neighbours import Neighbours
from kirana.flow.generators.stored_list import StoredList

GENERATORS: dict[str, Callable[[Mapping[str, Any], Catalog], Generator]] = {
    "neighbours": Neighbours,
    "stored_list": StoredList,
}


def build_generator(generator: CandidateGeneratorObject, catalog: Catalog) -> Generator:
    """Return the generator that a catalog object declares.

    Raise `CatalogError` with paths in the object if the generator is unknown, or if its parameters
    are invalid.
    """
    build = GENERATORS.get(generator.generator)
    if build is None:
        hint = did_you_mean(generator.generator, GENERATORS)
        message = f"unknown generator '{generator.generator}': {hint}"
        raise CatalogError([Problem(message, path="generator")])
    return build(generator.parameters, catalog)


__all__ = ["GENERATORS", "Generator", "build_generator"]
