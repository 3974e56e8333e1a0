"""Start Kirana for tests. On one machine, only one start runs at a time."""

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
    """Allow only one test on this machine at a time to run this block."""
    with LOCK.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def kirana_up(folder: Path, *options: str) -> Iterator[Server]:
    """Run `kirana up` for a catalog's folder on a free port, with its log in `up.log` there."""
    with ExitStack() as stack:
        with one_at_a_time():
            served = stack.enter_context(
                server(folder, free_ports(1)[0], folder / "up.log", *options)
            )
        yield served
