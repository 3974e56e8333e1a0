"""What a catalog of Kirana is checked with: the compilers of all that runs, and its models."""

from __future__ import annotations

from collections.abc import Mapping

from kirana.catalog.checks import Checks, Compile
from kirana.flow.generators import build_generator
from kirana.flow.graph import compile_flow
from kirana.inferflow.model_checks import looking_into
from kirana.inferflow.plan import compile_inferflow
from kirana.models.files import ModelFiles

COMPILERS: Mapping[str, Compile] = {
    "candidate_generator": build_generator,
    "inferflow": compile_inferflow,
    "flow": compile_flow,
}
"""By kind; each builds on those before it."""


def checks_of(models: ModelFiles | None = None) -> Checks:
    """Return all checks; without `models`, model files are neither looked into nor pinned."""
    return Checks(COMPILERS, models, looking_into(models) if models is not None else None)
