"""The Serve configuration that `serve deploy` takes, as `kirana up --config` reads it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from kirana.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class ServeConfig:
    """`http` are Serve's options, `arguments` Kirana's settings, `deployments` options by name."""

    http: dict[str, Any] = field(default_factory=dict)
    arguments: dict[str, Any] = field(default_factory=dict)
    deployments: dict[str, dict[str, Any]] = field(default_factory=dict)


def read_serve_config(path: Path | None) -> ServeConfig:
    """Return the first application of a file; without a file all is as it is by default.

    Raises `ConfigurationError` if the file is no Serve configuration.
    """
    if path is None:
        return ServeConfig()
    try:
        content = yaml.safe_load(path.read_text())
        application = content["applications"][0]
        deployments = {
            each["name"]: {name: value for name, value in each.items() if name != "name"}
            for each in application.get("deployments") or []
        }
        found = ServeConfig(
            content.get("http_options") or {}, application.get("args") or {}, deployments
        )
        if not (isinstance(found.http, dict) and isinstance(found.arguments, dict)):
            raise TypeError("'http_options' and 'args' are mappings")
        return found
    except (
        OSError,
        ValueError,
        yaml.YAMLError,
        KeyError,
        IndexError,
        TypeError,
        AttributeError,
    ) as error:
        raise ConfigurationError(f"{path} is no Serve configuration: {error}") from None
