"""Options in the queries of URLs, and what they say about TLS."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

Parser = Callable[[str, str], Any]
"""Returns the value of an option from its name and text. Raises `ValueError`, with the name."""


def parse_options(query: str, parsers: Mapping[str, tuple[str, Parser]]) -> dict[str, Any]:
    """Return the options of a query. `parsers` has the field and the parser of each option.

    Raise `ValueError` if an option is unknown or its text is not valid.
    """
    options: dict[str, Any] = {}
    for name, text in parse_qsl(query, keep_blank_values=True):
        if name not in parsers:
            raise ValueError(f"unknown option '{name}': choose one of {', '.join(parsers)}")
        field, parse = parsers[name]
        options[field] = parse(name, text)
    return options


def text(name: str, value: str) -> str:
    """Return a text that is not empty."""
    if not value:
        raise ValueError(f"{name} must not be empty")
    return value


def positive(name: str, value: str) -> float:
    """Return a number above 0."""
    try:
        number = float(value)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise ValueError(f"{name} must be a number above 0, not '{value}'")
    return number


def count(name: str, value: str) -> int:
    """Return an integer from 1 to 32768."""
    if not (value.isascii() and value.isdecimal() and 0 < int(value) <= 32_768):
        raise ValueError(f"{name} must be an integer from 1 to 32768, not '{value}'")
    return int(value)


def flag(name: str, value: str) -> bool:
    """Return True for `true` and False for `false`."""
    if value not in ("true", "false"):
        raise ValueError(f"{name} must be true or false, not '{value}'")
    return value == "true"


def one_of(choices: Sequence[str], *, upper: bool = False) -> Parser:
    """Return a parser that accepts `choices` only. With `upper`, it also accepts small letters."""

    def parse(name: str, value: str) -> str:
        found = value.upper() if upper else value
        if found not in choices:
            raise ValueError(f"{name} must be one of {', '.join(choices)}, not '{value}'")
        return found

    return parse


def file(name: str, value: str) -> str:
    """Return the path of a file that exists."""
    if not Path(value).is_file():
        raise ValueError(f"{name}: there is no file '{value}'")
    return value


@dataclass(frozen=True, slots=True)
class Tls:
    """What a client of TLS trusts, and its own certificate.

    Without `ca_certs`, it trusts the certificate authorities that the system knows.
    """

    ca_certs: str | None = None
    certfile: str | None = None
    keyfile: str | None = None
    check_hostname: bool = True

    def context(self) -> ssl.SSLContext:
        """Return the context for connections."""
        context = ssl.create_default_context(cafile=self.ca_certs)
        context.check_hostname = self.check_hostname
        if self.certfile is not None:
            context.load_cert_chain(self.certfile, self.keyfile)
        return context


TLS_PARSERS: dict[str, tuple[str, Parser]] = {
    "tls": ("tls", flag),
    "ssl_ca_certs": ("ssl_ca_certs", file),
    "ssl_certfile": ("ssl_certfile", file),
    "ssl_keyfile": ("ssl_keyfile", file),
    "ssl_check_hostname": ("ssl_check_hostname", flag),
}


def take_tls(options: dict[str, Any]) -> Tls | None:
    """Remove the options of TLS from parsed options. Return None unless `tls` is true.

    Raise `ValueError` if there are others without `tls`, or a certificate without its key.
    """
    is_on = options.pop("tls", False)
    names = [name for name in options if name.startswith("ssl_")]
    values = {name.removeprefix("ssl_"): options.pop(name) for name in names}
    if values and not is_on:
        raise ValueError("options of TLS need tls=true")
    if ("certfile" in values) != ("keyfile" in values):
        raise ValueError("ssl_certfile and ssl_keyfile must be given together")
    return Tls(**values) if is_on else None
