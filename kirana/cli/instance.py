"""One running Kirana a catalog directory: who holds it, where it answers, how it is ended."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psutil

from kirana.cli.console import own_command
from kirana.cli.interrupts import STOP
from kirana.errors import ConfigurationError

STOP_TIMEOUT_S = 45
MAX_LEFT_OVER = 1_000
"""What has not ended after so many were killed can't be killed."""


@dataclass(slots=True)
class InstanceState:
    """`folder` holds HAProxy's files; `processes` are (pid, start time) of what `up` started.

    `stores` are the URLs that it serves from, by setting and without passwords.
    """

    pid: int
    url: str
    folder: str
    processes: list[tuple[int, float]] = field(default_factory=list)
    stores: dict[str, str] = field(default_factory=dict)


class Instance:
    """Held by a file lock, so that a crash leaves it free; what a crash left is cleaned up."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.home = directory.resolve() / ".kirana"
        self._lock_file = self.home / "up.lock"
        self._state_file = self.home / "up.json"

    def read(self) -> InstanceState | None:
        try:
            record = json.loads(self._state_file.read_text())
            record["processes"] = [(pid, started) for pid, started in record["processes"]]
            return InstanceState(**record)
        except (FileNotFoundError, ValueError, TypeError, KeyError):
            return None

    def is_held(self) -> bool:
        if not self._lock_file.exists():
            return False
        with self._lock_file.open("r+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    def serving(self) -> dict[str, str]:
        """Return the stores of the Kirana that serves this directory now, none if it is down."""
        state = self.read()
        return state.stores if state is not None and self.is_held() else {}

    @contextmanager
    def hold(self, url: str, stores: dict[str, str]) -> Iterator[InstanceState]:
        """Be the instance of this directory. Raises `ConfigurationError` if another one is."""
        self.home.mkdir(exist_ok=True)
        with self._lock_file.open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                state = self.read()
                where = f" at {state.url} (process {state.pid})" if state else ""
                raise ConfigurationError(
                    f"Kirana is up{where} for {self.directory}; stop it with: "
                    f"{own_command()} down {self.directory}"
                ) from None
            self.clean_up()
            folder = tempfile.mkdtemp(prefix="kirana-")
            state = InstanceState(os.getpid(), url, folder, stores=stores)
            self._write(state)
            try:
                yield state
            finally:
                self.clean_up()

    def note_processes(self, state: InstanceState) -> None:
        """Remember what was started, for the case that nobody is there to end it."""
        for process in psutil.Process().children(recursive=True):
            try:
                started = (process.pid, process.create_time())
            except psutil.NoSuchProcess:
                continue
            if started not in state.processes:
                state.processes.append(started)
        self._write(state)

    def _write(self, state: InstanceState) -> None:
        beside = self._state_file.with_suffix(".new")
        beside.write_text(json.dumps(asdict(state)))
        beside.rename(self._state_file)

    def clean_up(self) -> int:
        """End what an instance that is gone has left; return how many processes that were."""
        state = self.read()
        if state is None:
            return 0
        ended = 0
        # a process that is being ended may have started another one just before
        while ended < MAX_LEFT_OVER and (left := _left_over(state)):
            for process in left:
                # it may have ended with another one that was just killed
                with suppress(psutil.Error):
                    process.kill()
            psutil.wait_procs(left, timeout=5)
            ended += len(left)
        shutil.rmtree(state.folder, ignore_errors=True)
        self._state_file.unlink(missing_ok=True)
        return ended

    def stop(self) -> bool:
        """End the instance and wait for its end; False if none was up.

        Raises `ConfigurationError` if it does not end.
        """
        state = self.read()
        if not self.is_held() or state is None:
            self.clean_up()
            return False
        psutil.Process(state.pid).send_signal(STOP)
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while self.is_held():
            if time.monotonic() > deadline:
                raise ConfigurationError(f"process {state.pid} did not end in {STOP_TIMEOUT_S} s")
            time.sleep(0.1)
        self.clean_up()
        return True


def _left_over(state: InstanceState) -> list[psutil.Process]:
    """What is still there: processes that were noted, and those that know of the folder."""
    noted = dict(state.processes)
    found = []
    for process in psutil.process_iter(["pid", "create_time", "name", "status"]):
        if process.pid == os.getpid() or process.info["status"] == psutil.STATUS_ZOMBIE:
            continue
        same = noted.get(process.pid) == process.info["create_time"]
        if same or _knows_of(process, state.folder):
            found.append(process)
    return found


def _knows_of(process: psutil.Process, folder: str) -> bool:
    """HAProxy has the folder among its arguments, what Ray starts has it in its environment."""
    try:
        words = list(process.environ().values())
        if process.info["name"] == "haproxy":
            words += process.cmdline()
    except (psutil.Error, OSError):
        return False
    return any(folder in word for word in words)
