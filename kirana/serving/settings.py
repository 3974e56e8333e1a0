"""The settings of a serving graph: the URLs of the stores, the placement, the limits.

They are the `args` of the application in `serve_config.yaml`. Environment variables override
them: `KIRANA_FEATURES=lmdb:///folder` overrides `features`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import ConfigDict, Field, ValidationError, field_validator

from kirana.errors import ConfigurationError, did_you_mean
from kirana.features.part import FeatureSettings
from kirana.interactions.part import InteractionSettings
from kirana.models.part import ModelSettings
from kirana.serving.placement import parse_placement
from kirana.streams.part import StreamSettings

PREFIX = "KIRANA_"
NO_DIRECT_PORTS = "off"


class Settings(FeatureSettings, StreamSettings, InteractionSettings, ModelSettings):
    """The settings of all parts, and those that they share.

    `catalog` is a `dir://` or `zk://` URL. The catalog there keeps the last `kept_revisions`
    revisions with the files of their models. `placement` is a text for `parse_placement`.
    `replicas` is the number of ingress replicas; if it is None, Serve's options of the deployment
    apply.

    `direct_ports` is a port, a range of ports, or "off". Each replica of the ingress takes the
    first free port of the range, on the address `direct_host`. By default, that is the address that
    Ray has for the machine.

    `timeout_ms` is the default deadline of a request, and `max_body_bytes` the largest size of its
    body. In one replica, at most `max_ongoing` requests wait or run at a time.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    catalog: str
    placement: str = "fused"
    replicas: Annotated[int | None, Field(ge=1, le=64)] = None
    direct_ports: str = "20000-20999"
    direct_host: str = ""
    timeout_ms: Annotated[int, Field(ge=1, le=600_000)] = 5_000
    max_body_bytes: Annotated[int, Field(ge=1_024)] = 8 << 20
    kept_revisions: Annotated[int, Field(ge=2, le=10_000)] = 100
    max_ongoing: Annotated[int, Field(ge=1, le=100_000)] = 2_048

    @field_validator("placement")
    @classmethod
    def _check_placement(cls, value: str) -> str:
        parse_placement(value)
        return value

    @field_validator("direct_ports", mode="before")
    @classmethod
    def _check_ports(cls, value: object) -> str:
        text = NO_DIRECT_PORTS if value is False else str(value)
        if text != NO_DIRECT_PORTS:
            parse_ports(text)
        return text

    @property
    def spread(self) -> frozenset[str]:
        """The names of the parts that are deployments."""
        return parse_placement(self.placement)

    @property
    def direct_range(self) -> range:
        """The range of direct ports. It is empty if they are off."""
        if self.direct_ports == NO_DIRECT_PORTS:
            return range(0)
        return parse_ports(self.direct_ports)


def parse_ports(text: str) -> range:
    """Return the range of ports that a text like `20000-20999`, or a single number, describes.

    Raise `ConfigurationError` if the text is not a range of ports.
    """
    first, dash, last = text.partition("-")
    numbers = (first.strip(), (last if dash else first).strip())
    if all(n.isascii() and n.isdecimal() and len(n) <= 5 for n in numbers):
        start, stop = (int(n) for n in numbers)
        if 1 <= start <= stop <= 65_535:
            return range(start, stop + 1)
    raise ConfigurationError(
        f"direct_ports: must be a port, a range of ports like 20000-20999 or 'off', not '{text}'",
        field="direct_ports",
    )


def read_settings(
    given: Mapping[str, Any],
    environment: Mapping[str, str] | None = None,
    options: Mapping[str, Any] | None = None,
) -> Settings:
    """Return the settings of a file, the environment and a command, merged.

    `options` of the command take precedence over variables in `environment` (`os.environ` by
    default). Variables take precedence over `given`, the settings of the file. Empty variables are
    ignored.

    Raise a `ConfigurationError` that names the setting if one is missing, unknown or wrong.
    """
    environment = os.environ if environment is None else environment
    known_names = Settings.model_fields
    values = dict(given)
    for name in known_names:
        text = environment.get(PREFIX + name.upper())
        if text:
            values[name] = text
    values.update(options or {})
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = str(first["loc"][0])
        message = first["msg"]
        if first["type"] == "extra_forbidden":
            message = f"unknown setting: {did_you_mean(name, known_names)}"
        elif first["type"] == "missing":
            message = f"no value is given: set the argument, or the variable {PREFIX}{name.upper()}"
        raise ConfigurationError(f"{name}: {message}", field=name) from None
