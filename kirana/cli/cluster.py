"""Ray and Serve on one machine, started and stopped by this process."""

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

from kirana.cli.interrupts import delayed_interrupts
from kirana.errors import Unavailable
from kirana.serving.environment import serve_environment
from kirana.serving.settings import Settings

OBJECT_STORE_BYTES = 256 << 20
"""The size of Ray's object store. It can be small because calls of parts don't use it."""

APPLICATION = "kirana"
"""The name of the Serve application."""

STARTUP_TIMEOUT_TEXT = "timed out during startup"
"""The text that Ray's error message contains if Ray's own processes did not start in time."""

Options = Mapping[str, Mapping[str, Any]]


@contextmanager
def cluster(
    host: str, port: int, metrics_port: int, folder: Path, record: Callable[[], None]
) -> Iterator[None]:
    """Start Ray and Serve, and stop both with all their processes at the end of the block.

    Serve listens on `host` and `port`. Ray offers the metrics of all replicas to Prometheus on
    `metrics_port`. HAProxy keeps its files in `folder`. `record` is called after Ray has started,
    and again before both are stopped, so that the caller can record the child processes.

    Raise `Unavailable` if Ray or Serve does not start, or `ConfigurationError` if too few ports are
    free.
    """
    handler = signal.getsignal(signal.SIGTERM)
    os.environ.update(serve_environment(folder))
    import ray
    from ray import serve

    # Serve overwrites the level of its logger when it starts, but it keeps filters.
    logging.getLogger("ray.serve").addFilter(lambda entry: entry.levelno >= logging.WARNING)
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
        # Ray may crash if it is interrupted while it connects.
        with delayed_interrupts(), _unavailable_in_one_line("Ray"):
            start_with_retry(start, _kill_children)
        signal.signal(signal.SIGTERM, handler)  # Ray has installed its own handler.
        record()
        with _unavailable_in_one_line("Serve"):
            serve.start(
                proxy_location="HeadOnly",
                http_options={"host": host, "port": port},
                logging_config={"log_level": "WARNING"},
            )
        yield
    finally:
        record()
        # Ray prints messages when its processes end. They mean nothing to users.
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            if ray.is_initialized():
                serve.shutdown()  # type: ignore[no-untyped-call]
            ray.shutdown()


def start_with_retry(start: Callable[[], object], kill: Callable[[], None]) -> None:
    """Call `start`, and call it once more if Ray did not start in time.

    A busy machine may need longer than the time that Ray allows. `kill` is called before the second
    attempt. It must kill the processes that the first attempt left behind.

    Raise any other error of the first attempt, and any error of the second one.
    """
    try:
        start()
    except Exception as error:
        if STARTUP_TIMEOUT_TEXT not in str(error):
            raise
        kill()
        start()


def _kill_children() -> None:
    children = psutil.Process().children(recursive=True)
    for process in children:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(children, timeout=5)


@contextmanager
def _unavailable_in_one_line(program: str) -> Iterator[None]:
    """Convert any error into `Unavailable`, with the one line of its message that matters.

    The message of a Ray error may be a whole traceback. `program` is "Ray" or "Serve".
    """
    try:
        yield
    except Exception as error:  # Some of Ray's errors are plain exceptions.
        lines = str(error).strip().splitlines() or [type(error).__name__]
        # The last line of HAProxy's output says only that an earlier error was fatal.
        reason = next((line for line in lines if "cannot bind" in line), lines[-1])
        raise Unavailable(f"{program} did not start: {reason.strip()}") from error


def deploy(settings: Settings, options: Options | None = None) -> None:
    """Deploy the serving graph, and return once it is ready.

    `options` are Serve's options for each deployment, by its name.

    Raise `ConfigurationError` if `options` name an unknown deployment or Serve refuses them, or
    `Unavailable` with the reason if the graph does not become ready.
    """
    from ray import serve
    from ray.serve.exceptions import RayServeException

    from kirana.graphs.serving import graph

    try:
        serve.run(graph(settings, options), name=APPLICATION)
    except (RayServeException, RuntimeError, ValueError) as error:
        raise Unavailable(f"the application did not start: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """Return the last message of a deployment in Serve's status, else the text of `error`."""
    from ray import serve

    reason = str(error)
    for application in serve.status().applications.values():
        for name, deployment in application.deployments.items():
            if deployment.message:
                reason = f"{name}: {_last_error(deployment.message)}"
    return reason


def _last_error(trace: str) -> str:
    """Return the message of the last Kirana error in a traceback, else the whole traceback."""
    messages = re.findall(r"^kirana\.errors\.\w+: (.*)$", trace, re.MULTILINE)
    return messages[-1] if messages else trace
