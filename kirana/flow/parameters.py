"""Validation of the parameters of nodes and generators, which the catalog has under `with:`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import ValidationError

from kirana.catalog.objects import Strict
from kirana.errors import CatalogError, Problem

P = TypeVar("P", bound=Strict)


def check_parameters(model: type[P], parameters: Mapping[str, Any]) -> P:
    """Return parameters as an instance of `model`.

    Raise `CatalogError` with paths that begin with `with` if they are invalid.
    """
    try:
        return model.model_validate(dict(parameters))
    except ValidationError as error:
        problems = []
        for detail in error.errors(include_url=False):
            steps = [
                *detail["loc"],
                *([detail["ctx"]["key"]] if detail["type"] == "unknown_key" else []),
            ]
            message = detail["msg"].removeprefix("Value error, ")
            if detail["type"] == "missing":
                message = f"'{steps.pop()}' is missing"
            problems.append(Problem(message, path=".".join(["with", *map(str, steps)])))
        raise CatalogError(problems) from None
