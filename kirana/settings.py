"""What a serving graph is built from: URLs that choose the parts, placement, limits.

Read from `args` of an application in `serve_config.yaml`; each can be overridden by a variable
of its name in capitals, `KIRANA_FEATURES=lmdb:///folder`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kirana.errors import ConfigurationError, did_you_mean

PREFIX = "KIRANA_"
Placement = Literal["fused", "spread"]


class Settings(BaseModel):
    """`catalog` is a `dir://` URL, `features` and `interactions` a store's, `models` a root's."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    catalog: str
    features: str
    interactions: str
    models: str
    placement: Placement = "fused"
    replicas: Annotated[int, Field(ge=1, le=64)] = 1
    timeout_ms: Annotated[int, Field(ge=1, le=600_000)] = 5_000
    max_body_bytes: Annotated[int, Field(ge=1_024)] = 8 << 20


def read_settings(
    given: Mapping[str, Any], environment: Mapping[str, str] | None = None
) -> Settings:
    """Merge what a file gives with the variables.

    Raises `ConfigurationError` naming the setting.
    """
    environment = os.environ if environment is None else environment
    names = Settings.model_fields
    values = dict(given)
    for name in names:
        variable = environment.get(PREFIX + name.upper())
        if variable:
            values[name] = variable
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = str(first["loc"][0])
        message = first["msg"]
        if first["type"] == "extra_forbidden":
            message = f"unknown setting: {did_you_mean(name, names)}"
        elif first["type"] == "missing":
            message = f"it is missing: set it, or {PREFIX}{name.upper()}"
        raise ConfigurationError(f"{name}: {message}", field=name) from None
