"""Candidate generators, by the name that `generator:` gives. A new one is a file, and a line."""

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
    """Raises `CatalogError` with paths in the generator's object."""
    build = GENERATORS.get(generator.generator)
    if build is None:
        hint = did_you_mean(generator.generator, GENERATORS)
        message = f"unknown generator '{generator.generator}': {hint}"
        raise CatalogError([Problem(message, path="generator")])
    return build(generator.parameters, catalog)


__all__ = ["GENERATORS", "Generator", "build_generator"]
