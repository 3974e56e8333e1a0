"""Ray and Serve on one machine, in this process's care."""

from __future__ import annotations

import io
import logging
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

from kirana.errors import ConfigurationError, Unavailable
from kirana.serve_environment import serve_environment
from kirana.settings import Settings

OBJECT_STORE_BYTES = 256 << 20
"""Small, because everything travels by value."""

APPLICATION = "kirana"


def require_free_port(host: str, port: int) -> None:
    """Raise `ConfigurationError` if somebody listens there already."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ConfigurationError(
                f"{host}:{port} can't be listened on ({error.strerror}): choose another "
                "one with --port (of make: PORT=8001)",
                field="port",
            ) from None


@contextmanager
def cluster(host: str, port: int, folder: Path, note: Callable[[], None]) -> Iterator[None]:
    """Start Ray and Serve; both are ended with all their processes when the block is left.

    `note` is called when there are new processes that somebody has to end.
    """
    on_term = signal.getsignal(signal.SIGTERM)
    os.environ.update(serve_environment(folder))
    import ray
    from ray import serve

    # Serve sets its own logger's level again; a filter stays
    logging.getLogger("ray.serve").addFilter(lambda record: record.levelno >= logging.WARNING)
    try:
        ray.init(
            address="local",
            include_dashboard=False,
            _node_ip_address="127.0.0.1",
            object_store_memory=OBJECT_STORE_BYTES,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
        signal.signal(signal.SIGTERM, on_term)  # Ray has put its own handler there
        note()
        serve.start(
            proxy_location="HeadOnly",
            http_options={"host": host, "port": port},
            logging_config={"log_level": "WARNING"},
        )
        yield
    finally:
        note()
        # Ray's own words about its parts that end say nothing to a person
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            if ray.is_initialized():
                serve.shutdown()  # type: ignore[no-untyped-call]
            ray.shutdown()


def deploy(settings: Settings) -> None:
    """Run the serving graph. Raises `Unavailable` if it does not get ready."""
    from ray import serve
    from ray.serve.exceptions import RayServeException

    from graphs.serving import build

    try:
        serve.run(build(settings.model_dump()), name=APPLICATION)
    except (RayServeException, RuntimeError) as error:
        raise Unavailable(f"the serving graph did not start: {error}") from error
