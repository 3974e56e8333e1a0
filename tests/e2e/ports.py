"""Ports for servers that are about to start."""

from __future__ import annotations

import random
import socket


def quiet_ports(count: int) -> list[int]:
    """Return free ports below those that the system gives to whoever asks for any."""
    found: list[int] = []
    while len(found) < count:
        port = random.randint(22_000, 29_000)
        with socket.socket() as probe:
            if port not in found and probe.connect_ex(("127.0.0.1", port)) != 0:
                found.append(port)
    return found
