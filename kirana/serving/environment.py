"""The environment variables that make Serve fast, and free ports.

The variables must be set on every node before Ray starts.
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
    # RAY_SERVE_THROUGHPUT_OPTIMIZED implies this, but too late: the proxy's setting is read first.
    "RAY_SERVE_USE_GRPC_BY_DEFAULT": "1",
    # Requests and replies of parts may exceed the default of 4 MiB. This is the largest value.
    "RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH": str((1 << 31) - 1),
}

_NICENESS = "RAY_worker_niceness"

_ECONOMY = {
    # By default, every other process of the machine takes precedence over a replica. Beside two
    # busy processes on two cores, a replica then answers 8 requests per second instead of 317.
    _NICENESS: "0",
    "RAY_SERVE_HAPROXY_NBTHREAD": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    # Ray must not change CUDA_VISIBLE_DEVICES in a process that reserves no GPU.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # HAProxy would send one log line per request to a Python process. Kirana has its own metrics of
    # the same requests.
    "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",
    # The front door starts slowly on a busy machine. After 5 s, Serve would kill it, and the deploy
    # would fail.
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
}
"""Variables that are not required."""

LOG_FILE = "KIRANA_LOG_FILE"
"""The variable that names the file to which replicas log."""

ALLOW_UNTUNED = "KIRANA_UNTUNED_RAY"
"""If this variable is 1, replicas start without the required variables, to measure their effect."""

_PORTS = (
    "RAY_SERVE_HAPROXY_METRICS_PORT",
    "RAY_SERVE_HAPROXY_STATS_PORT",
    "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT",
    "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT",
)


def require_serve_environment(environment: Mapping[str, str] | None = None) -> None:
    """Raise a `ConfigurationError` that names the required variables that are missing or wrong.

    `environment` is by default that of this process. A replica inherits its environment from Ray.
    If the variable `ALLOW_UNTUNED` is 1, nothing is checked.
    """
    environment = os.environ if environment is None else environment
    if environment.get(ALLOW_UNTUNED) == "1":
        return
    missing = [
        f"{name}={value}" for name, value in REQUIRED.items() if environment.get(name) != value
    ]
    if missing:
        raise ConfigurationError(
            "Kirana needs Ray to be started with these variables on every node: "
            f"{' '.join(missing)}"
        )


def cluster_environment(token_file: Path) -> dict[str, str]:
    """Return the variables to set on each node of a cluster before `ray start`.

    `token_file` is the file with the secret that the cluster will require from its clients. By
    default, Ray requires no secret.
    """
    return {
        **REQUIRED,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token_file),
        # Ray's default of 30 s would leave too little time to drain the direct port of a replica.
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "2",
        **_ECONOMY,
    }


def serve_environment(folder: Path) -> dict[str, str]:
    """Return the variables for a Ray instance whose Serve shares no ports or files with another.

    HAProxy keeps its files in `folder`. The path must be short, because the path of a Unix socket
    has at most 107 bytes. If the environment of this process sets the niceness of Ray's workers, it
    is kept. Raise `ConfigurationError` if too few ports are free.
    """
    ports = dict(zip(_PORTS, map(str, free_ports(len(_PORTS))), strict=True))
    replica_ports = _replica_ports()
    return {
        **REQUIRED,
        **ports,
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(replica_ports.start),
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(replica_ports.stop),
        **_ECONOMY,
        _NICENESS: os.environ.get(_NICENESS, _ECONOMY[_NICENESS]),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "admin.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "server-state"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(folder / "metrics.sock"),
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
    }


_QUIET_PORTS = range(21_000, 29_000)
"""Ports above the default direct ports, and below Linux's default for outgoing connections."""

_REPLICA_PORTS = [range(first, first + 100) for first in range(30_000, 32_700, 100)]
"""Ranges of ports on which the replicas of one Ray instance listen for HAProxy."""

_TRIES = 1_000
"""The maximum number of ports that a call of `free_ports` tries."""


def free_ports(count: int) -> list[int]:
    """Return `count` ports, in random order, on which nothing listens at any IPv4 address.

    The system does not choose them, because it could give the same port to an outgoing connection
    before the server starts. On Linux, no other call of this function, in any process, returns the
    same ports while this process lives.

    Raise `ConfigurationError` if too few are found in `_TRIES` attempts.
    """
    ports: list[int] = []
    with ExitStack() as probes:
        for port in random.sample(_QUIET_PORTS, _TRIES):
            if len(ports) == count:
                break
            if not _reserve(port):
                continue
            probe = probes.enter_context(socket.socket())
            # Servers set this option, too. With it, a port that was closed a moment ago is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("0.0.0.0", port))
            except OSError:
                continue
            ports.append(port)
    if len(ports) == count:
        return ports
    raise ConfigurationError(
        f"found only {len(ports)} free ports from {_QUIET_PORTS.start} to "
        f"{_QUIET_PORTS.stop - 1}, but {count} are needed"
    )


def _replica_ports() -> range:
    """Return a range of `_REPLICA_PORTS`, in random order, that no other call has reserved.

    HAProxy still knows the port of a killed replica for a while. If a replica of another Ray
    instance took that port, it would get requests that are not meant for it. If all ranges are
    reserved, one of them is shared.
    """
    ranges = random.sample(_REPLICA_PORTS, len(_REPLICA_PORTS))
    return next((ports for ports in ranges if _reserve(ports.start)), ranges[0])


def _reserve(port: int) -> bool:
    """Reserve a port until this process ends. Return False if another call has reserved it.

    The reservation is a socket with an abstract name, which only Linux has.
    """
    if sys.platform != "linux":
        return True
    reservation = socket.socket(socket.AF_UNIX)
    try:
        reservation.bind(f"\0kirana-port-{port}")
    except OSError:
        reservation.close()
        return False
    # The name exists while the socket is open. A detached socket stays open until the process ends.
    reservation.detach()
    return True
