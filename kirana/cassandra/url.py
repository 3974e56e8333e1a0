"""The settings of a client of Cassandra, from a URL.

    cassandra://host:port,host:port/keyspace?option=value

The hosts are contact points: the client finds the other nodes through them. The scheme may also be
`scylla`. User and password may stand before the hosts, as in `cassandra://user:password@host/shop`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from kirana.urls import addresses_of, credentials_of, without_password

DEFAULT_PORT = 9042
DEFAULT_TIMEOUT_S = 2.0

CONSISTENCIES = ("ONE", "TWO", "THREE", "QUORUM", "ALL", "LOCAL_ONE", "LOCAL_QUORUM", "EACH_QUORUM")
_FOR_WRITES_ONLY = ("EACH_QUORUM",)
_QUORUMS = ("QUORUM", "LOCAL_QUORUM", "EACH_QUORUM")

_KEYSPACE = re.compile(r"[a-zA-Z]\w{0,47}", re.ASCII)


@dataclass(frozen=True, slots=True)
class CassandraUrl:
    """The settings of one client.

    `name` is the URL without its password. `data_centre` is the one whose nodes the client uses,
    or None for that of the first node that answers. `read_consistency` and `write_consistency` are
    among `CONSISTENCIES`. `timeout_s` limits the wait for one reply, `in_flight` the number of
    requests that wait for a reply. `replication` is how many copies of each row a new keyspace has
    in the data centre; None for three, or for as many as there are nodes.
    """

    name: str
    hosts: tuple[tuple[str, int], ...]
    keyspace: str
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    data_centre: str | None = None
    replication: int | None = None
    read_consistency: str = "LOCAL_QUORUM"
    write_consistency: str = "LOCAL_QUORUM"
    timeout_s: float = DEFAULT_TIMEOUT_S
    in_flight: int = 256
    tls: bool = False
    ssl_ca_certs: str | None = None
    ssl_certfile: str | None = None
    ssl_keyfile: str | None = None
    ssl_check_hostname: bool = True

    @property
    def reads_see_writes(self) -> bool:
        """Whether each read asks a node that has each acknowledged write of the data centre."""
        levels = (self.read_consistency, self.write_consistency)
        return "ALL" in levels or all(level in _QUORUMS for level in levels)

    @classmethod
    def parse(cls, url: str) -> CassandraUrl:
        """Return the settings that a URL holds. Raise `ValueError` if it is not valid."""
        parts = urlsplit(url)
        keyspace = parts.path.strip("/")
        if not _KEYSPACE.fullmatch(keyspace):
            raise ValueError(
                "it must end with the name of a keyspace, of at most 48 letters, digits and "
                f"underscores, as in cassandra://host:{DEFAULT_PORT}/shop"
            )
        options: dict[str, Any] = {}
        for name, text in parse_qsl(parts.query, keep_blank_values=True):
            if name not in _OPTIONS:
                raise ValueError(f"unknown option '{name}': choose one of {', '.join(_OPTIONS)}")
            setting, parse = _OPTIONS[name]
            options[setting] = parse(name, text)
        if options.get("read_consistency") in _FOR_WRITES_ONLY:
            raise ValueError(f"read: {options['read_consistency']} is for writes only")
        settings = cls(
            without_password(url),
            tuple(addresses_of(parts.netloc, DEFAULT_PORT)),
            keyspace,
            **{**options, **credentials_of(parts.netloc)},
        )
        if not settings.tls and any(name.startswith("ssl_") for name in options):
            raise ValueError("options of TLS need tls=true")
        if (settings.ssl_certfile is None) != (settings.ssl_keyfile is None):
            raise ValueError("ssl_certfile and ssl_keyfile must be given together")
        return settings


def _text(name: str, text: str) -> str:
    if not text:
        raise ValueError(f"{name} must not be empty")
    return text


def _positive(name: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise ValueError(f"{name} must be a number above 0, not '{text}'")
    return number


def _count(name: str, text: str) -> int:
    if not (text.isascii() and text.isdecimal() and 0 < int(text) <= 32_768):
        raise ValueError(f"{name} must be an integer from 1 to 32768, not '{text}'")
    return int(text)


def _flag(name: str, text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError(f"{name} must be true or false, not '{text}'")
    return text == "true"


def _consistency(name: str, text: str) -> str:
    if text.upper() not in CONSISTENCIES:
        raise ValueError(f"{name} must be one of {', '.join(CONSISTENCIES)}, not '{text}'")
    return text.upper()


def _file(name: str, text: str) -> str:
    if not Path(text).is_file():
        raise ValueError(f"{name}: there is no file '{text}'")
    return text


_OPTIONS: dict[str, tuple[str, Callable[[str, str], Any]]] = {
    "data_centre": ("data_centre", _text),
    "replication": ("replication", _count),
    "read": ("read_consistency", _consistency),
    "write": ("write_consistency", _consistency),
    "timeout": ("timeout_s", _positive),
    "in_flight": ("in_flight", _count),
    "username": ("username", _text),
    "password": ("password", _text),
    "tls": ("tls", _flag),
    "ssl_ca_certs": ("ssl_ca_certs", _file),
    "ssl_certfile": ("ssl_certfile", _file),
    "ssl_keyfile": ("ssl_keyfile", _file),
    "ssl_check_hostname": ("ssl_check_hostname", _flag),
}
"""For each option of the URL, the field that it sets, and the parser of its text."""
