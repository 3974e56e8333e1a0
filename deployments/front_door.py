"""A check that no other process listens on Serve's HTTP port.

If one does, HAProxy retries forever to bind the port, and only Ray's logs show the error.
"""

from __future__ import annotations

import os

import psutil
from ray.serve.context import _get_global_client

from kirana.errors import ConfigurationError

_RAYLET = "RAY_RAYLET_PID"
"""The variable that identifies the Ray instance of a process and its children."""


def check_front_door() -> None:
    """Raise `ConfigurationError` if another process listens on Serve's HTTP port, at any address.

    Only processes of this Ray instance may listen there. No-op if Serve is not running yet.
    """
    client = _get_global_client()
    if client is None:
        return
    host, port = client.http_config.host, client.http_config.port
    for connection in psutil.net_connections("tcp"):
        address = connection.laddr
        if connection.status != psutil.CONN_LISTEN or not address or address.port != port:
            continue
        try:
            holder = _describe_foreign(connection.pid)
        except psutil.NoSuchProcess:
            continue
        if holder is not None:
            raise ConfigurationError(
                f"{host}:{port} is taken by {holder}: end it, or give another port in "
                "http_options, and start Serve again",
                field="port",
            )


def _describe_foreign(pid: int | None) -> str | None:
    """Return a description of a process, or None if it belongs to this Ray instance.

    Raise `psutil.NoSuchProcess` if it has ended.
    """
    if pid is None:
        return "a process of another user"
    process = psutil.Process(pid)
    try:
        if process.environ().get(_RAYLET) == os.environ[_RAYLET]:
            return None
    except psutil.AccessDenied:
        pass
    return f"process {pid} ({process.name()})"
