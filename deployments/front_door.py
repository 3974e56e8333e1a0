"""Whether Serve's HTTP port is Serve's: where another process has it, HAProxy tries for ever."""

from __future__ import annotations

import psutil
from ray.serve.context import _get_global_client

from kirana.errors import ConfigurationError

PROXY = "haproxy"


def check_front_door() -> None:
    """Raise `ConfigurationError` if a process of this machine that is no proxy listens there."""
    client = _get_global_client()
    if client is None:
        return
    host, port = client.http_config.host, client.http_config.port
    for connection in psutil.net_connections("tcp"):
        at = connection.laddr
        if connection.status != psutil.CONN_LISTEN or not at or at.port != port:
            continue
        if connection.pid is None:
            continue
        try:
            name = psutil.Process(connection.pid).name()
        except psutil.Error:
            continue
        if PROXY not in name and not name.startswith("ray::"):
            raise ConfigurationError(
                f"{host}:{port} is taken by process {connection.pid} ({name}): end it, or give "
                "another port in http_options, and start Serve anew",
                field="port",
            )
