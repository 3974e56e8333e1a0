"""A single ZooKeeper server on a free port, which tests can kill, restart, empty and pause."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
from pathlib import Path

from kirana.serving.environment import free_ports
from tests.needs import skip_missing
from tests.waiting import wait_for

JARS = Path(__file__).parents[1] / ".cache" / "zookeeper"
MAIN = "org.apache.zookeeper.server.quorum.QuorumPeerMain"


def _require() -> None:
    """Skip the test if Java or the jars of ZooKeeper are missing."""
    if shutil.which("java") is None:
        skip_missing("java is missing")
    if not (JARS / ".fetched").exists():
        skip_missing(f"the jars of ZooKeeper are missing from {JARS}")


class ZooKeeperServer:
    """A server that runs during the `with` block and allows sessions of 1 to 10 seconds."""

    def __init__(self, folder: Path) -> None:
        (self._port,) = free_ports(1)
        self._data = folder / "data"
        self._config = folder / "zoo.cfg"
        self._log = folder / "log"
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

    def __enter__(self) -> ZooKeeperServer:
        _require()
        self._start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def port(self) -> int:
        return self._port

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._port}"

    def kill(self) -> None:
        """Kill the server, which may be paused."""
        self._process.kill()
        self._process.wait()

    def restart(self) -> None:
        """Kill the server, and start it again on the same port with its stored data."""
        self.kill()
        self._start()

    def empty(self) -> None:
        """Kill the server, and start it again without its stored data."""
        self.kill()
        shutil.rmtree(self._data)
        self._start()

    def pause(self) -> None:
        """Stop the process: connections stay open, but requests get no answer."""
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def _start(self) -> None:
        command = ["java", "-Xmx256m", "-cp", f"{JARS}/*", MAIN, str(self._config)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            wait_for(self._serves, self._log.read_text, ignoring=OSError)
        except AssertionError:
            self.kill()
            raise

    def _serves(self) -> bool:
        """Return whether the server reports its mode, which it does once it handles requests."""
        assert self._process.poll() is None, self._log.read_text()
        with socket.create_connection(("127.0.0.1", self._port), timeout=1) as connection:
            connection.sendall(b"srvr")
            return b"Mode: standalone" in connection.makefile("rb").read()
