"""A single ZooKeeper server on a free port, which tests can kill, restart, empty and pause."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from kirana.serving.environment import free_ports
from tests.java_server import JavaServer

MAIN = "org.apache.zookeeper.server.quorum.QuorumPeerMain"


class ZooKeeperServer(JavaServer):
    """A server that runs during the `with` block and allows sessions of 1 to 10 seconds."""

    need = "zookeeper"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, *free_ports(1))
        self._data = folder / "data"
        self._config = folder / "zoo.cfg"
        self._config.write_text(
            "tickTime=500\n"
            "minSessionTimeout=1000\n"
            f"dataDir={self._data}\n"
            f"clientPort={self._port}\n"
            "clientPortAddress=127.0.0.1\n"
            "maxClientCnxns=0\n"
            "admin.enableServer=false\n"
            "4lw.commands.whitelist=*\n"
        )

    def empty(self) -> None:
        """Kill the server, and start it again without its stored data."""
        self.kill()
        shutil.rmtree(self._data)
        self.start()

    def _command(self) -> Sequence[str]:
        return ["-Xmx256m", MAIN, str(self._config)]

    def _serves(self) -> bool:
        """Return whether the server reports its mode, which it does once it handles requests."""
        with self._connected() as connection:
            connection.sendall(b"srvr")
            return b"Mode: standalone" in connection.makefile("rb").read()
