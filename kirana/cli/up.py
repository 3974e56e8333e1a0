"""The `kirana up` command."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

from kirana.cli.catalog import make_topics, publish, report
from kirana.cli.cluster import cluster, deploy
from kirana.cli.console import err, show_warning
from kirana.cli.instance import Instance
from kirana.cli.interrupts import STOP
from kirana.cli.locations import (
    CatalogDirectory,
    CatalogUrl,
    ModelRoot,
    as_urls,
    local_settings,
)
from kirana.cli.remembered import remember, stores_without_passwords
from kirana.cli.serve_config import ServeConfig, read_serve_config
from kirana.cli.serving_options import (
    DEFAULT_HOST,
    DEFAULT_PORT,
    DirectPorts,
    Host,
    Placement,
    Port,
    Replicas,
    ServeFile,
)
from kirana.cli.store_options import with_store_options
from kirana.errors import Unavailable
from kirana.serving.environment import LOG_FILE, free_ports
from kirana.serving.preflight import (
    check_direct_ports,
    check_placement,
    check_port,
    check_space,
    check_stores,
)
from kirana.serving.settings import Settings


@with_store_options
def up(
    directory: CatalogDirectory,
    config: ServeFile = None,
    host: Host = None,
    port: Port = None,
    placement: Placement = None,
    replicas: Replicas = None,
    direct_ports: DirectPorts = None,
    models: ModelRoot = None,
    catalog: CatalogUrl = None,
    **stores: str | None,
) -> None:
    """Publish a catalog and serve it over HTTP until Ctrl-C or 'kirana down'."""
    options: dict[str, Any] = {
        "placement": placement,
        "replicas": replicas,
        "direct_ports": direct_ports,
    }
    given = {name: value for name, value in options.items() if value is not None}
    given |= as_urls(models, catalog, stores)
    file = read_serve_config(config)
    host = host or str(file.http.get("host", DEFAULT_HOST))
    port = port or int(file.http.get("port", DEFAULT_PORT))
    settings = local_settings(directory, given, {"direct_host": host, **file.arguments})
    for number in (signal.SIGTERM, signal.SIGHUP, STOP):
        _interrupt_on(number)
    instance = Instance(directory)
    with instance.hold(f"http://{host}:{port}", stores_without_passwords(settings)) as state:
        record = partial(instance.record_processes, state)
        _require_startable(settings, file, host, port)
        _make_topics(settings)
        report(publish(settings, directory))
        # Do this before Kirana is healthy: `kirana push` may read the locations from then on.
        remember(directory, settings)
        log = instance.home / "kirana.log"
        os.environ[LOG_FILE] = str(log)
        (metrics_port,) = free_ports(1)
        with ExitStack() as stack:
            with err.status("starting Ray and Serve"):
                stack.enter_context(cluster(host, port, metrics_port, Path(state.folder), record))
                deploy(settings, file.deployments)
                record()
            err.print(f"Kirana is up at {state.url} ({settings.placement}); Ctrl-C stops it")
            err.print(f"The log is {log}", markup=False)
            err.print(f"Metrics for Prometheus: http://127.0.0.1:{metrics_port}/metrics")
            try:
                _wait()
            finally:
                _ignore_signals()
                err.print("stopping")


def _require_startable(settings: Settings, file: ServeConfig, host: str, port: int) -> None:
    """Raise `ConfigurationError` if Kirana can't start with these settings and options.

    The catalog is not checked here, but when it is published.
    """
    from kirana.graphs.serving import graph, max_replicas

    graph(settings, file.deployments)
    check_placement(settings, max_replicas(settings, file.deployments))
    check_port(host, port)
    check_direct_ports(settings)
    check_space(settings)
    asyncio.run(check_stores(settings))


def _make_topics(settings: Settings) -> None:
    """Make the topics of the feature stream. Print a warning if Kafka does not answer."""
    try:
        make_topics(settings)
    except Unavailable as error:
        show_warning(f"streams: {error.message}; reads are served without it")


def _interrupt_on(number: signal.Signals) -> None:
    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    # A signal that is ignored stays ignored, as SIGHUP is under nohup.
    if signal.getsignal(number) is not signal.SIG_IGN:
        signal.signal(number, interrupt)


def _ignore_signals() -> None:
    """Ignore the signals that stop `kirana up`: a second one must not interrupt the shutdown."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, STOP):
        signal.signal(number, signal.SIG_IGN)


def _wait() -> None:
    threading.Event().wait()
