"""The running Kirana of a catalog directory. There is at most one, and all commands can find it.

DIR/.kirana/up.lock   locked by `kirana up` while it runs
DIR/.kirana/up.json   the `InstanceState` of the last start, until the next clean-up
"""

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
MAX_KILLS = 1_000
"""A clean-up gives up after this many attempts to kill a process, so that it always ends."""


@dataclass(slots=True)
class InstanceState:
    """The record that a running `kirana up` keeps about itself.

    `pid` is the process of `kirana up`, and `url` is its HTTP address. `folder` holds HAProxy's
    files. `processes` are the recorded child processes, as pairs of pid and start time (Unix
    seconds). `stores` are the URLs of the catalog, the stores and the models, by setting and
    without passwords.
    """

    pid: int
    url: str
    folder: str
    processes: list[tuple[int, float]] = field(default_factory=list)
    stores: dict[str, str] = field(default_factory=dict)


class Instance:
    """The instance of Kirana that serves a catalog directory, if one is running.

    A running instance holds a file lock. The lock is released even if the instance crashes. The
    next `hold` or `stop` cleans up the processes and files that a crashed instance left behind.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.home = directory.resolve() / ".kirana"
        self._lock_file = self.home / "up.lock"
        self._state_file = self.home / "up.json"

    def read(self) -> InstanceState | None:
        """Return the recorded state, or None if there is none or it can't be read.

        The state may be left from a crash.
        """
        try:
            record = json.loads(self._state_file.read_text())
            record["processes"] = [(pid, started) for pid, started in record["processes"]]
            return InstanceState(**record)
        except (FileNotFoundError, ValueError, TypeError, KeyError):
            return None

    def is_held(self) -> bool:
        """Return whether an instance is running, that is, whether a process holds the lock."""
        if not self._lock_file.exists():
            return False
        with self._lock_file.open("r+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    def serving(self) -> dict[str, str]:
        """Return `InstanceState.stores` of the running instance, or {} if none is running."""
        state = self.read()
        return state.stores if state is not None and self.is_held() else {}

    @contextmanager
    def hold(self, url: str, stores: dict[str, str]) -> Iterator[InstanceState]:
        """Hold the lock as the instance of this directory until the end of the block.

        Yield the recorded state. Before the block, clean up what an earlier crash left behind.
        After the block, clean up what this instance leaves behind.

        Raise `ConfigurationError` if another instance is running.
        """
        self.home.mkdir(exist_ok=True)
        with self._lock_file.open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                state = self.read()
                where = f" at {state.url} (process {state.pid})" if state else ""
                raise ConfigurationError(
                    f"Kirana is already up{where} for {self.directory}; stop it with: "
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

    def record_processes(self, state: InstanceState) -> None:
        """Record all child processes, so that they can be killed if this process crashes."""
        for process in psutil.Process().children(recursive=True):
            try:
                identity = (process.pid, process.create_time())
            except psutil.NoSuchProcess:
                continue
            if identity not in state.processes:
                state.processes.append(identity)
        self._write(state)

    def _write(self, state: InstanceState) -> None:
        temporary = self._state_file.with_suffix(".new")
        temporary.write_text(json.dumps(asdict(state)))
        temporary.rename(self._state_file)

    def clean_up(self) -> int:
        """Kill the processes of the recorded instance, and delete its files.

        Return the number of attempts to kill a process. This process is never killed. No-op if no
        state is recorded.
        """
        state = self.read()
        if state is None:
            return 0
        kills = 0
        # Look again after each round: a process may have started a child before it was killed.
        while kills < MAX_KILLS and (processes := _left_over(state)):
            for process in processes:
                # The process may have ended already, for example with its parent.
                with suppress(psutil.Error):
                    process.kill()
            psutil.wait_procs(processes, timeout=5)
            kills += len(processes)
        shutil.rmtree(state.folder, ignore_errors=True)
        self._state_file.unlink(missing_ok=True)
        return kills

    def stop(self) -> bool:
        """Stop the running instance, and wait until it has ended. Return False if none was running.

        In both cases, clean up what the instance has left behind.

        Raise `ConfigurationError` if the instance does not end within `STOP_TIMEOUT_S` seconds.
        """
        state = self.read()
        if not self.is_held() or state is None:
            self.clean_up()
            return False
        psutil.Process(state.pid).send_signal(STOP)
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while self.is_held():
            if time.monotonic() > deadline:
                raise ConfigurationError(
                    f"process {state.pid} did not end within {STOP_TIMEOUT_S} s"
                )
            time.sleep(0.1)
        self.clean_up()
        return True


def _left_over(state: InstanceState) -> list[psutil.Process]:
    """Return the processes of an instance that are still running, except this process."""
    start_times = dict(state.processes)
    left_over = []
    for process in psutil.process_iter(["pid", "create_time", "name", "status"]):
        if process.pid == os.getpid() or process.info["status"] == psutil.STATUS_ZOMBIE:
            continue
        recorded = start_times.get(process.pid) == process.info["create_time"]
        if recorded or _belongs_to(process, state.folder):
            left_over.append(process)
    return left_over


def _belongs_to(process: psutil.Process, folder: str) -> bool:
    """Return whether a process belongs to the instance that keeps HAProxy's files in `folder`.

    All processes of Ray have the folder in their environment. HAProxy has it in its arguments.
    """
    try:
        texts = list(process.environ().values())
        if process.info["name"] == "haproxy":
            texts += process.cmdline()
    except (psutil.Error, OSError):
        return False
    return any(folder in text for text in texts)
