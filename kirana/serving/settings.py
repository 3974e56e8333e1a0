"""What a serving graph is built from: URLs that choose the parts, placement, limits.

Read from `args` of an application in `serve_config.yaml`; each can be overridden by a variable
of its name in capitals, `KIRANA_FEATURES=lmdb:///folder`.
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

PREFIX = "KIRANA_"
NO_DIRECT_PORTS = "off"


class Settings(FeatureSettings, InteractionSettings, ModelSettings):
    """The settings of all parts, and the shared ones. `catalog` is a `dir://` or `zk://` URL.

    `placement` is what `parse_placement` takes. `direct_ports` is a range, in which each replica
    of the ingress takes the first free one, or "off"; `direct_host` is where
    they listen, by default the address that Ray knows the machine by. `max_ongoing` requests are
    under way in one replica at most.
    The catalog keeps `kept_revisions`, with the bytes of their models.
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
    max_ongoing: Annotated[int, Field(ge=1, le=100_000)] = 512

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
        """The parts that are deployments of their own."""
        return parse_placement(self.placement)

    @property
    def direct_range(self) -> range:
        """The ports for direct access; empty if there are none."""
        if self.direct_ports == NO_DIRECT_PORTS:
            return range(0)
        return parse_ports(self.direct_ports)


def parse_ports(text: str) -> range:
    """Return the ports of `20000-20999`, or of one number.

    Raises `ConfigurationError` for what is no range of ports.
    """
    first, dash, last = text.partition("-")
    numbers = (first.strip(), (last if dash else first).strip())
    if all(each.isascii() and each.isdecimal() and len(each) <= 5 for each in numbers):
        start, stop = (int(each) for each in numbers)
        if 1 <= start <= stop <= 65_535:
            return range(start, stop + 1)
    raise ConfigurationError(
        f"direct_ports: '{text}' is neither a range of ports like 20000-20999 nor 'off'",
        field="direct_ports",
    )


def read_settings(
    given: Mapping[str, Any],
    environment: Mapping[str, str] | None = None,
    options: Mapping[str, Any] | None = None,
) -> Settings:
    """Merge what a file gives with the variables, and these with the options of a command.

    Raises `ConfigurationError` naming the setting.
    """
    environment = os.environ if environment is None else environment
    names = Settings.model_fields
    values = dict(given)
    for name in names:
        variable = environment.get(PREFIX + name.upper())
        if variable:
            values[name] = variable
    values.update(options or {})
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
