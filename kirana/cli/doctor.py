"""`kirana doctor`."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import psutil
import typer
from rich.table import Table

from kirana import native
from kirana.cli.cluster import OBJECT_STORE_BYTES
from kirana.cli.console import out
from kirana.cli.instance import Instance
from kirana.cli.locations import (
    CatalogDirectory,
    CatalogUrl,
    ModelRoot,
    as_urls,
    local_settings,
)
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
from kirana.errors import ConfigurationError, KiranaError
from kirana.serving.environment import require_serve_environment
from kirana.serving.preflight import (
    check_catalog,
    check_direct_ports,
    check_placement,
    check_port,
    check_space,
    check_stores,
)
from kirana.serving.settings import Settings

State = Literal["ok", "warning", "error"]
MIN_MEMORY_BYTES = 1 << 30
_SHOWN = {"ok": "[green]ok[/]", "warning": "[yellow]warning[/]", "error": "[red]error[/]"}


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check came to; `name` is of one or two words."""

    name: str
    state: State
    message: str


@with_store_options
def doctor(
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
    """Look for what would keep Kirana from starting here, or from a Ray that runs already."""
    options: dict[str, Any] = {
        "placement": placement,
        "replicas": replicas,
        "direct_ports": direct_ports,
    }
    given = {name: each for name, each in options.items() if each is not None}
    given |= as_urls(models, catalog, stores)
    findings = list(examine(directory, read_serve_config(config), given, host, port))
    table = Table(box=None, show_header=False, pad_edge=False)
    for each in findings:
        table.add_row(_SHOWN[each.state], each.name, each.message)
    out.print(table)
    if any(each.state == "error" for each in findings):
        raise typer.Exit(1)


def examine(
    directory: Path, file: ServeConfig, options: dict[str, Any], host: str | None, port: int | None
) -> Iterator[Finding]:
    """Run every check; one that fails keeps none of the others from being run."""
    from kirana.graphs.serving import graph, max_replicas

    host = host or str(file.http.get("host", DEFAULT_HOST))
    port = port or int(file.http.get("port", DEFAULT_PORT))
    try:
        settings = local_settings(directory, options, {"direct_host": host, **file.arguments})
    except ConfigurationError as error:
        yield Finding("settings", "error", error.message)
        return
    yield Finding("settings", "ok", f"{settings.placement}, features in {settings.features}")
    fine = "can be deployed"
    yield _check("deployments", lambda: graph(settings, file.deployments), fine)
    replicas = max_replicas(settings, file.deployments)
    yield _check("placement", lambda: check_placement(settings, replicas), "can work")
    yield _check(
        "catalog", lambda: check_catalog(settings, directory), "valid, and every model can be used"
    )
    yield _check("space", lambda: check_space(settings), "enough")
    yield _check("stores", lambda: asyncio.run(check_stores(settings)), "can be opened")
    yield from _ports(directory, settings, host, port)
    yield _memory()
    yield _native()
    yield from _running_rays()


def _check(name: str, check: Callable[[], object], fine: str) -> Finding:
    try:
        check()
    except KiranaError as error:
        return Finding(name, "error", error.message)
    except Exception as error:
        # what one check did not expect must not hide what the others find
        return Finding(name, "error", f"{type(error).__name__}: {error}")
    return Finding(name, "ok", fine)


def _ports(directory: Path, settings: Settings, host: str, port: int) -> Iterator[Finding]:
    instance = Instance(directory)
    state = instance.read()
    if instance.is_held() and state is not None:
        yield Finding("port", "warning", f"Kirana is up for this directory already: {state.url}")
        return
    yield _check("port", lambda: check_port(host, port), f"{host}:{port} is free")
    if settings.direct_range:
        fine = f"one of {settings.direct_ports} is free"
        yield _check("direct ports", lambda: check_direct_ports(settings), fine)


def _memory() -> Finding:
    available = psutil.virtual_memory().available
    shared = shutil.disk_usage("/dev/shm").free if Path("/dev/shm").exists() else 0
    if available < MIN_MEMORY_BYTES:
        return Finding("memory", "warning", f"only {available >> 20} MB are available")
    if shared < OBJECT_STORE_BYTES:
        return Finding(
            "memory", "warning", f"/dev/shm has {shared >> 20} MB free: Ray will use a slow disk"
        )
    return Finding("memory", "ok", f"{available >> 20} MB available, {shared >> 20} in /dev/shm")


def _native() -> Finding:
    if native.COMPILED:
        return Finding("native", "ok", "the inmost loops are compiled")
    if os.environ.get("KIRANA_NATIVE") == "0":
        return Finding("native", "warning", "KIRANA_NATIVE=0: reads are slower than they can be")
    message = "not compiled, so reads are slower: apt-get install gcc python3-dev, install again"
    return Finding("native", "warning", message)


def _running_rays() -> Iterator[Finding]:
    """A Ray that somebody started here has its variables for good: `serve deploy` needs ours."""
    for process in psutil.process_iter(["name"]):
        if process.info["name"] != "raylet":
            continue
        try:
            environment = process.environ()
        except (psutil.Error, OSError):
            continue
        name = f"ray {process.pid}"
        try:
            require_serve_environment(environment)
        except ConfigurationError as error:
            yield Finding(name, "warning", f"'serve deploy' to it is refused: {error.message}")
        else:
            yield Finding(name, "ok", "was started with the variables that Kirana needs")
    if any(name.startswith("RAY_SERVE_") for name in os.environ):
        yield _check("environment", require_serve_environment, "'ray start' here would be fine")
