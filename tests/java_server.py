"""What the servers in Java have in common: tests can start, kill, restart and pause them."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from tests.needs import skip_missing
from tests.waiting import TIMEOUT_S, wait_for

CACHE = Path(__file__).parents[1] / ".cache"


class JavaServer(ABC):
    """A server that runs during the `with` block. `need` is its marker, and the folder of its jars.

    It writes its output to `folder/log`, and runs in `folder`.
    """

    need: str
    start_timeout_s = TIMEOUT_S

    def __init__(self, folder: Path, port: int, host: str = "127.0.0.1") -> None:
        self._folder = folder
        self._port = port
        self._host = host
        self._log = folder / "log"

    def __enter__(self) -> Self:
        jars = CACHE / self.need
        if shutil.which("java") is None:
            skip_missing("java is missing")
        if not (jars / ".fetched").exists():
            skip_missing(f"the jars of {self.need} are missing from {jars}")
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def port(self) -> int:
        return self._port

    @property
    def address(self) -> str:
        return f"{self._host}:{self._port}"

    def start(self) -> None:
        """Start the server, with the data of its folder, and wait until it accepts clients."""
        self._process = self._java(*self._command())
        try:
            wait_for(
                self._serves, self._log.read_text, ignoring=OSError, timeout_s=self.start_timeout_s
            )
        except AssertionError:
            self.kill()
            raise

    def kill(self) -> None:
        """Kill the server, which may be paused."""
        self._process.kill()
        self._process.wait()

    def restart(self) -> None:
        """Kill the server, and start it again on the same port with its stored data."""
        self.kill()
        self.start()

    def pause(self) -> None:
        """Stop the process: connections stay open, but requests get no answer."""
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    @abstractmethod
    def _command(self) -> Sequence[str]:
        """Return the options of Java, the main class and its arguments."""

    def _java(self, *command: str) -> subprocess.Popen[bytes]:
        words = ["java", "-cp", f"{CACHE / self.need}/*", *command]
        with self._log.open("ab") as log:
            return subprocess.Popen(words, stdout=log, stderr=log, cwd=self._folder)

    def _serves(self) -> bool:
        """Return whether the server accepts connections of clients."""
        with self._connected():
            return True

    def _connected(self) -> socket.socket:
        """Return a connection to the server, which must still run."""
        assert self._process.poll() is None, self._log.read_text()
        return socket.create_connection((self._host, self._port), timeout=1)
