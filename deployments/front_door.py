"""Whether Serve's HTTP port is this Serve's alone.

Where another process listens, HAProxy tries for ever, and what it says is in Ray's logs alone.
"""

from __future__ import annotations

import os

import psutil
from ray.serve.context import _get_global_client

from kirana.errors import ConfigurationError

_RAYLET = "RAY_RAYLET_PID"
"""Ray tells each of its workers, and so what they start, whose they are."""


def check_front_door() -> None:
    """Raise `ConfigurationError` if a process that is not of this Ray listens there."""
    client = _get_global_client()
    if client is None:
        return
    host, port = client.http_config.host, client.http_config.port
    for connection in psutil.net_connections("tcp"):
        at = connection.laddr
        if connection.status != psutil.CONN_LISTEN or not at or at.port != port:
            continue
        try:
            holder = _foreign(connection.pid)
        except psutil.NoSuchProcess:
            continue
        if holder is not None:
            raise ConfigurationError(
                f"{host}:{port} is taken by {holder}: end it, or give another port in "
                "http_options, and start Serve anew",
                field="port",
            )


def _foreign(pid: int | None) -> str | None:
    """Return what a process is called that is not of this Ray; None if it is."""
    if pid is None:
        return "a process of another user"
    process = psutil.Process(pid)
    try:
        if process.environ().get(_RAYLET) == os.environ[_RAYLET]:
            return None
    except psutil.AccessDenied:
        pass
    return f"process {pid} ({process.name()})"
