"""The checks of a catalog that need the engines: objects must compile, and models must run."""

from __future__ import annotations

from collections.abc import Mapping

from kirana.catalog.checks import Checks, Compile, Tables
from kirana.flow.generators import build_generator
from kirana.flow.graph import compile_flow
from kirana.inferflow.model_checks import model_checker
from kirana.inferflow.plan import compile_inferflow
from kirana.ingest.source import compile_source
from kirana.models.files import ModelFiles

COMPILERS: Mapping[str, Compile] = {
    "source": compile_source,
    "candidate_generator": build_generator,
    "inferflow": compile_inferflow,
    "flow": compile_flow,
}
"""Compilers by kind, in the order in which they run: flows refer to objects of the other kinds."""


def catalog_checks(models: ModelFiles | None = None, tables: Tables | None = None) -> Checks:
    """Return all checks of a catalog.

    Without `models`, model files are not opened or pinned. Without `tables`, a publish does not
    look at the tables of stores.
    """
    check_model = model_checker(models) if models is not None else None
    return Checks(COMPILERS, models, check_model, tables)
