"""Serve configuration files, for `serve deploy` and the option `--config` of `kirana` commands."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from kirana.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class ServeConfig:
    """The first application of a Serve configuration file.

    `http` are Serve's HTTP options, and `arguments` are Kirana's settings. `deployments` are
    Serve's options for each deployment, by its name.
    """

    http: dict[str, Any] = field(default_factory=dict)
    arguments: dict[str, Any] = field(default_factory=dict)
    deployments: dict[str, dict[str, Any]] = field(default_factory=dict)


def read_serve_config(path: Path | None) -> ServeConfig:
    """Read the first application of a file. Without a file, return an empty configuration.

    Raise `ConfigurationError` if the file can't be read, is not YAML, has no application, or has a
    field that Serve refuses.
    """
    if path is None:
        return ServeConfig()
    # The import of Ray takes a second, and most commands don't need it.
    from ray.serve.schema import ServeDeploySchema

    try:
        content = yaml.safe_load(path.read_text())
        checked = ServeDeploySchema.model_validate(content)
    except ValidationError as error:
        raise ConfigurationError(
            f"{path} is not a Serve configuration: {_first_error(error)}"
        ) from None
    except OSError as error:
        raise ConfigurationError(f"{path} can't be read: {error.strerror}") from None
    except (ValueError, TypeError, AttributeError, yaml.YAMLError) as error:
        raise ConfigurationError(f"{path} is not a Serve configuration: {error}") from None
    if not checked.applications:
        raise ConfigurationError(f"{path} is not a Serve configuration: it has no 'applications'")
    application = content["applications"][0]
    return ServeConfig(
        checked.http_options.model_dump(exclude_unset=True),
        application.get("args") or {},
        {
            deployment["name"]: {
                name: value for name, value in deployment.items() if name != "name"
            }
            for deployment in application.get("deployments") or []
        },
    )


def _first_error(error: ValidationError) -> str:
    """Return the first error as a text: its field, if it has one, then its message."""
    details = error.errors(include_url=False, include_context=False)[0]
    path = ".".join(map(str, details["loc"]))
    message = details["msg"].removeprefix("Value error, ")
    return f"{path}: {message}" if path else message
