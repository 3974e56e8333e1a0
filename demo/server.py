"""`kirana up` as a child process."""

from __future__ import annotations

import ctypes
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from kirana.cli.interrupts import STOP
from kirana.errors import Unavailable

START_TIMEOUT_S = 120
STOP_TIMEOUT_S = 60
_PR_SET_PDEATHSIG = 1


def _end_with_parent() -> None:
    """Have the kernel send `STOP` to this process when its parent ends."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, STOP)


@dataclass(frozen=True, slots=True)
class Server:
    """A running `kirana up`: its process, and an HTTP client for it."""

    process: subprocess.Popen[bytes]
    client: httpx.Client


@contextmanager
def server(catalog: Path, port: int, log: Path, *options: str) -> Iterator[Server]:
    """Start `kirana up` with `options`, yield it once it is healthy, and stop it after the block.

    The output of the process goes to the file `log`.

    Raise `Unavailable` if the process ends before it is healthy, or is not healthy after
    `START_TIMEOUT_S` seconds.
    """
    command = [sys.executable, "-m", "kirana", "up", str(catalog), "--port", str(port), *options]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=_end_with_parent,
        )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30.0) as client:
            _wait_until_healthy(process, client, log)
            yield Server(process, client)
    finally:
        process.send_signal(STOP)
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_healthy(process: subprocess.Popen[bytes], client: httpx.Client, log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            output = log.read_text(errors="replace").strip()
            raise Unavailable(f"'kirana up' ended with status {process.returncode}:\n{output}")
        try:
            if client.get("/healthz").status_code == httpx.codes.OK:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise Unavailable(f"'kirana up' was not healthy within {START_TIMEOUT_S} s: see {log}")
