"""`with:` of nodes and generators, checked against what each of them takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import ValidationError

from kirana.catalog.objects import Strict
from kirana.errors import CatalogError, Problem

P = TypeVar("P", bound=Strict)


def check_parameters(model: type[P], given: Mapping[str, Any]) -> P:
    """Validate `with:` against its model. Raises `CatalogError` with paths below `with`."""
    try:
        return model.model_validate(dict(given))
    except ValidationError as error:
        problems = []
        for each in error.errors(include_url=False):
            steps = [*each["loc"], *([each["ctx"]["key"]] if each["type"] == "unknown_key" else [])]
            message = each["msg"].removeprefix("Value error, ")
            if each["type"] == "missing":
                message = f"'{steps.pop()}' is missing"
            problems.append(Problem(message, path=".".join(["with", *map(str, steps)])))
        raise CatalogError(problems) from None
