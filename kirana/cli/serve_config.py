"""The Serve configuration that `serve deploy` takes, as `kirana up --config` reads it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from kirana.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class ServeConfig:
    """`http` are Serve's options, `arguments` Kirana's settings, `deployments` options by name."""

    http: dict[str, Any] = field(default_factory=dict)
    arguments: dict[str, Any] = field(default_factory=dict)
    deployments: dict[str, dict[str, Any]] = field(default_factory=dict)


def read_serve_config(path: Path | None) -> ServeConfig:
    """Return the first application of a file; without a file all is as it is by default.

    Raises `ConfigurationError` for what `serve deploy` would refuse, naming the field.
    """
    if path is None:
        return ServeConfig()
    # Ray's import takes a second, which most commands have no need of
    from ray.serve.schema import ServeDeploySchema

    try:
        content = yaml.safe_load(path.read_text())
        checked = ServeDeploySchema.model_validate(content)
    except ValidationError as error:
        raise ConfigurationError(f"{path} is not a Serve configuration: {_first(error)}") from None
    except (OSError, ValueError, TypeError, AttributeError, yaml.YAMLError) as error:
        raise ConfigurationError(f"{path} is not a Serve configuration: {error}") from None
    if not checked.applications:
        raise ConfigurationError(
            f"{path} is not a Serve configuration: applications: there is none"
        )
    application = content["applications"][0]
    return ServeConfig(
        checked.http_options.model_dump(exclude_unset=True),
        application.get("args") or {},
        {
            each["name"]: {name: value for name, value in each.items() if name != "name"}
            for each in application.get("deployments") or []
        },
    )


def _first(error: ValidationError) -> str:
    """Return the first mistake after the field where it is: `http_options.port: ...`."""
    found = error.errors(include_url=False, include_context=False)[0]
    path = ".".join(map(str, found["loc"]))
    message = found["msg"].removeprefix("Value error, ")
    return f"{path}: {message}" if path else message
