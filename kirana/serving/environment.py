"""The variables that must be set before Ray starts, on every node: Serve as fast as it can be.

The default Serve path is ten times slower (measured: a no-op 210 req/s, with these 1,200).
"""

from __future__ import annotations

import os
import random
import socket
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from kirana.errors import ConfigurationError

REQUIRED = {
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    # the proxy reads this one before the first one acts
    "RAY_SERVE_USE_GRPC_BY_DEFAULT": "1",
}

_SMALL = {
    "RAY_SERVE_HAPROXY_NBTHREAD": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # a log line a request through a process in Python, a tenth of a rank: Kirana counts the same
    "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",
}
"""For a machine with few cores, and for one that tells nobody."""

LOG_FILE = "KIRANA_LOG_FILE"
"""Names the file that replicas log to."""

UNTUNED = "KIRANA_UNTUNED_RAY"
"""Set to 1, it lets replicas run on a Ray without the variables: to measure what they are worth."""

_PORTS = (
    "RAY_SERVE_HAPROXY_METRICS_PORT",
    "RAY_SERVE_HAPROXY_STATS_PORT",
    "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT",
    "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT",
)


def require_serve_environment(environment: Mapping[str, str] | None = None) -> None:
    """Raise `ConfigurationError` naming the variables that Ray was started without."""
    environment = os.environ if environment is None else environment
    if environment.get(UNTUNED) == "1":
        return
    lacking = [
        f"{name}={value}" for name, value in REQUIRED.items() if environment.get(name) != value
    ]
    if lacking:
        raise ConfigurationError(
            "Ray was started without the variables that Kirana needs on every node: set "
            f"{' '.join(lacking)}, then start Ray again"
        )


def cluster_environment(token_file: Path) -> dict[str, str]:
    """Return the variables for each node of a cluster that `ray start` makes.

    `token_file` holds the secret that Ray then asks its clients for, which it does not otherwise.
    """
    return {
        **REQUIRED,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token_file),
        # Ray's 30 s would leave a replica's own port no time for its drain
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "2",
        **_SMALL,
    }


def serve_environment(folder: Path) -> dict[str, str]:
    """Return the variables for a Ray of one machine that shares nothing with another one.

    `folder` holds HAProxy's files; its path must be short, a socket's name has 107 bytes.
    """
    ports = dict(zip(_PORTS, map(str, free_ports(len(_PORTS))), strict=True))
    return {
        **REQUIRED,
        **ports,
        **_SMALL,
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "admin.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "server-state"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(folder / "metrics.sock"),
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
    }


_QUIET_PORTS = range(21_000, 29_000)
"""Below those that Linux gives to outgoing connections, above those of the replicas."""

_TRIES = 1_000


def free_ports(count: int) -> list[int]:
    """Return ports, in no order, that nothing listens on now, at any address.

    A port that the system picks could go to an outgoing connection before its server has started.
    Another process that calls this gets other ports for as long as this process lives.
    Raises `ConfigurationError` if all ports are taken.
    """
    found: list[int] = []
    with ExitStack() as held:
        for port in random.sample(_QUIET_PORTS, _TRIES):
            if len(found) == count:
                return found
            if not _reserve(port):
                continue
            probe = held.enter_context(socket.socket())
            # a port that was left a moment ago is free for a server, which says so too
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("0.0.0.0", port))
            except OSError:
                continue
            found.append(port)
    raise ConfigurationError(
        f"no {count} ports of {_QUIET_PORTS.start} to {_QUIET_PORTS.stop - 1} are free"
    )


def _reserve(port: int) -> bool:
    """Tell whether no other call has this port, and hold its name until this process ends."""
    if sys.platform != "linux":
        return True
    name = socket.socket(socket.AF_UNIX)
    try:
        name.bind(f"\0kirana-port-{port}")
    except OSError:
        name.close()
        return False
    name.detach()
    return True
