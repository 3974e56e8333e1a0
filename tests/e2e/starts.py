"""Start one Ray at a time: several at once take all of the CPU, and longer than they may."""

from __future__ import annotations

import fcntl
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from kirana.demo.server import Server, server
from kirana.serving.environment import free_ports

LOCK = Path(tempfile.gettempdir()) / "kirana-tests-start.lock"


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """Wait until no other test of this machine is within such a block."""
    with LOCK.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def kirana_up(folder: Path, *options: str) -> Iterator[Server]:
    """Serve a catalog's folder on a free port, as `kirana up` does; it logs to `up.log` there."""
    with ExitStack() as stack:
        with one_at_a_time():
            served = stack.enter_context(
                server(folder, free_ports(1)[0], folder / "up.log", *options)
            )
        yield served
