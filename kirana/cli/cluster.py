"""Ray and Serve on one machine, in this process's care."""

from __future__ import annotations

import io
import logging
import os
import re
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from kirana.cli.interrupts import interrupts_held_back
from kirana.errors import Unavailable
from kirana.serving.environment import serve_environment
from kirana.serving.settings import Settings

OBJECT_STORE_BYTES = 256 << 20
"""Small, because everything travels by value."""

APPLICATION = "kirana"

TOO_SLOW = "timed out during startup"
"""Of what Ray says when its own processes did not start in the time that it gives them."""

Options = Mapping[str, Mapping[str, Any]]


@contextmanager
def cluster(
    host: str, port: int, metrics_port: int, folder: Path, note: Callable[[], None]
) -> Iterator[None]:
    """Start Ray and Serve; both are ended with all their processes when the block is left.

    `metrics_port` is where Prometheus finds the figures of all replicas. `note` is called when
    there are new processes that somebody has to end.
    """
    on_term = signal.getsignal(signal.SIGTERM)
    os.environ.update(serve_environment(folder))
    import ray
    from ray import serve

    # Serve sets its own logger's level again; a filter stays
    logging.getLogger("ray.serve").addFilter(lambda record: record.levelno >= logging.WARNING)
    try:
        start = partial(
            ray.init,
            address="local",
            include_dashboard=False,
            _node_ip_address="127.0.0.1",
            _metrics_export_port=metrics_port,
            object_store_memory=OBJECT_STORE_BYTES,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
        # whoever leaves while it connects may crash it
        with interrupts_held_back(), _one_line("Ray"):
            twice_if_slow(start, _end_children)
        signal.signal(signal.SIGTERM, on_term)  # Ray has put its own handler there
        note()
        with _one_line("Serve"):
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


def twice_if_slow(start: Callable[[], object], end: Callable[[], None]) -> None:
    """Start Ray, and once more if it was too slow for itself; `end` ends what the first left.

    Ray gives its agents 15 s, which no setting changes. A machine that is busy, or reads them
    from disk for the first time, may need longer.
    """
    try:
        start()
    except Exception as error:
        if TOO_SLOW not in str(error):
            raise
        end()
        start()


def _end_children() -> None:
    children = psutil.Process().children(recursive=True)
    for process in children:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(children, timeout=5)


@contextmanager
def _one_line(part: str) -> Iterator[None]:
    """Raise `Unavailable` with the line that tells most of what Ray says, often a traceback."""
    try:
        yield
    except Exception as error:  # Ray also raises some that have no kind of their own
        lines = str(error).strip().splitlines() or [type(error).__name__]
        # HAProxy's last line says only that something before it was fatal
        told = next((each for each in lines if "cannot bind" in each), lines[-1])
        raise Unavailable(f"{part} did not start: {told.strip()}") from error


def deploy(settings: Settings, options: Options | None = None) -> None:
    """Run the serving graph; `options` are Serve's, by the name of a deployment.

    Raises `Unavailable` with the reason if it does not get ready.
    """
    from ray import serve
    from ray.serve.exceptions import RayServeException

    from kirana.graphs.serving import graph

    try:
        serve.run(graph(settings, options), name=APPLICATION)
    except (RayServeException, RuntimeError, ValueError) as error:
        raise Unavailable(f"the serving graph did not start: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """Return what a replica died of, which Serve knows, or else what Serve says."""
    from ray import serve

    said = str(error)
    for application in serve.status().applications.values():
        for name, deployment in application.deployments.items():
            if deployment.message:
                said = f"{name}: {_last_error(deployment.message)}"
    return said


def _last_error(trace: str) -> str:
    """Return the last line of a traceback that names an error of ours, or all of it."""
    found = re.findall(r"^kirana\.errors\.\w+: (.*)$", trace, re.MULTILINE)
    return found[-1] if found else trace
