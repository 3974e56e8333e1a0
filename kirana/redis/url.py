"""Make clients of Redis from URLs.

    redis://host:port/0                          one server
    redis+sentinel://host:port,host:port/name/0  the master that the Sentinels call `name`
    redis+cluster://host:port,host:port          a cluster

With TLS the schemes are rediss://, rediss+sentinel:// and rediss+cluster://. The connections to the
Sentinels then use TLS too. Some options of redis-py are allowed, as in `?socket_timeout=0.2`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from redis.asyncio import Redis
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff

from kirana.urls import addresses_of, credentials_of

DEFAULT_PORT = 6379
DEFAULT_TIMEOUT_S = 0.5
"""Default timeout in seconds for a reply, and for opening a connection."""

MIN_LIMIT_S = 1.0
"""Minimum of `call_limit_s`, in seconds."""

# One retry, because the server may have closed an idle connection.
_RETRY = Retry(NoBackoff(), 1)

_NUMBERS = ("socket_timeout", "socket_connect_timeout", "max_connections")
_TEXTS = ("username", "password")
_FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_CHOICES: dict[str, dict[str, Any]] = {
    "ssl_cert_reqs": {"none": "none", "optional": "optional", "required": "required"},
    "ssl_check_hostname": {"true": True, "false": False},
}
_NAMES = (*_NUMBERS, *_TEXTS, *_FILES, *_CHOICES)


def client_of(url: str) -> tuple[Redis, Sequence[Redis], float]:
    """Return a client, the clients of its Sentinels, and the timeout for a reply in seconds.

    There are no Sentinels if the URL names one server. The clients do not connect yet. Raise
    `ValueError` if `url` is not valid, or not the URL of one server or of Sentinels.
    """
    parts, hosts, options, timeout_s = _parsed(url)
    path = _path(parts)
    match _without_tls(parts.scheme):
        case "redis":
            if len(hosts) > 1:
                raise ValueError("several hosts need redis+cluster:// or redis+sentinel://")
            host, port = hosts[0]
            client = Redis(host=host, port=port, db=_database(path), retry=_RETRY, **options)
            return client, (), timeout_s
        case "redis+sentinel":
            if not path:
                raise ValueError(
                    "the name of the master is missing: use redis+sentinel://host:port/name"
                )
            sentinel: Any = Sentinel(  # type: ignore[no-untyped-call]
                hosts, sentinel_kwargs=_sentinel_options(options), **options
            )
            client = sentinel.master_for(path[0], db=_database(path[1:]), retry=_RETRY)
            return client, sentinel.sentinels, timeout_s
    raise ValueError(f"'{parts.scheme}' is not a Redis scheme")


def cluster_of(url: str) -> tuple[RedisCluster, float]:
    """Return a client of a cluster, and the timeout for a reply in seconds.

    The client does not connect yet. Raise `ValueError` if `url` is not valid.
    """
    parts, hosts, options, timeout_s = _parsed(url)
    if _path(parts):
        raise ValueError("a cluster has no numbered databases")
    nodes = [ClusterNode(host, port) for host, port in hosts]
    # If some slots have no owner, only their keys are unavailable.
    client = RedisCluster(startup_nodes=nodes, retry=_RETRY, require_full_coverage=False, **options)
    return client, timeout_s


def call_limit_s(timeout_s: float) -> float:
    """Return how many seconds it may take to find a server, connect, and receive its reply.

    `timeout_s` is the timeout for one reply.
    """
    return max(4 * timeout_s, MIN_LIMIT_S)


def _parsed(
    url: str,
) -> tuple[SplitResult, list[tuple[str, int]], dict[str, Any], float]:
    """Return a URL's parts, its hosts, its options for redis-py, and the timeout for a reply."""
    parts = urlsplit(url)
    hosts = addresses_of(parts.netloc, DEFAULT_PORT)
    tls = parts.scheme != _without_tls(parts.scheme)
    if not tls and any(name.startswith("ssl_") for name, _ in parse_qsl(parts.query)):
        raise ValueError(f"TLS options need {parts.scheme.replace('redis', 'rediss')}://")
    options: dict[str, Any] = {
        "socket_timeout": DEFAULT_TIMEOUT_S,
        "socket_connect_timeout": DEFAULT_TIMEOUT_S,
        **_options(parts.query),
        **credentials_of(parts.netloc),
    }
    timeout_s = float(options["socket_timeout"])
    if tls:
        options["ssl"] = True
    return parts, hosts, options, timeout_s


def _without_tls(scheme: str) -> str:
    return scheme.replace("rediss", "redis")


def _path(parts: SplitResult) -> list[str]:
    return [unquote(segment) for segment in parts.path.split("/") if segment]


def _options(query: str) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for name, text in parse_qsl(query, keep_blank_values=True):
        if name in _NUMBERS:
            try:
                options[name] = int(text) if name == "max_connections" else float(text)
                if not 0 < options[name] < float("inf"):
                    raise ValueError
            except ValueError:
                number = "an integer" if name == "max_connections" else "a number"
                raise ValueError(f"{name} must be {number} above 0, not '{text}'") from None
        elif name in _CHOICES:
            choices = _CHOICES[name]
            if text not in choices:
                raise ValueError(f"{name} must be one of {', '.join(choices)}, not '{text}'")
            options[name] = choices[text]
        elif name in _FILES and not Path(text).is_file():
            raise ValueError(f"{name}: there is no file '{text}'")
        elif name in _TEXTS or name in _FILES:
            options[name] = text
        else:
            raise ValueError(f"unknown option '{name}': choose one of {', '.join(_NAMES)}")
    return options


def _database(path: Sequence[str]) -> int:
    if not path:
        return 0
    if len(path) > 1 or not (path[0].isascii() and path[0].isdecimal()):
        raise ValueError(f"'{'/'.join(path)}' is not a database number")
    return int(path[0])


def _sentinel_options(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options for connections to Sentinels.

    These are the options for the master without its credentials. Failed commands are not retried.
    """
    credentials = ("username", "password")
    sentinel_options = {name: value for name, value in options.items() if name not in credentials}
    # If a Sentinel does not answer, the next one is tried at once.
    return {**sentinel_options, "retry": Retry(NoBackoff(), 0)}
