"""The settings of a client of Cassandra, from a URL.

    cassandra://host:port,host:port/keyspace?option=value

The hosts are contact points: the client finds the other nodes through them. The scheme may also be
`scylla`. User and password may stand before the hosts, as in `cassandra://user:password@host/shop`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from kirana.url_options import (
    TLS_PARSERS,
    Parser,
    Tls,
    count,
    one_of,
    parse_options,
    positive,
    take_tls,
    text,
)
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
    tls: Tls | None = None

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
        options = parse_options(parts.query, _OPTIONS)
        tls = take_tls(options)
        if options.get("read_consistency") in _FOR_WRITES_ONLY:
            raise ValueError(f"read: {options['read_consistency']} is for writes only")
        return cls(
            without_password(url),
            tuple(addresses_of(parts.netloc, DEFAULT_PORT)),
            keyspace,
            tls=tls,
            **{**options, **credentials_of(parts.netloc)},
        )


_OPTIONS: dict[str, tuple[str, Parser]] = {
    "data_centre": ("data_centre", text),
    "replication": ("replication", count),
    "read": ("read_consistency", one_of(CONSISTENCIES, upper=True)),
    "write": ("write_consistency", one_of(CONSISTENCIES, upper=True)),
    "timeout": ("timeout_s", positive),
    "in_flight": ("in_flight", count),
    "username": ("username", text),
    "password": ("password", text),
    **TLS_PARSERS,
}
"""For each option of the URL, the field that it sets, and the parser of its text."""
