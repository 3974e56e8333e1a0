"""The `kirana doctor` command."""

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
from kirana.features.part import open_store
from kirana.part import OFF
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
from kirana.stores.durability import Durability
from kirana.urls import without_password

State = Literal["ok", "warning", "error"]
MIN_MEMORY_BYTES = 1 << 30
_LABELS = {"ok": "[green]ok[/]", "warning": "[yellow]warning[/]", "error": "[red]error[/]"}


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check. `name` is a label of one or two words."""

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
    """Check whether Kirana can start on this machine.

    Also check whether 'serve deploy' would work with a Ray cluster that is already running here.
    Exit with 1 if a check finds an error.
    """
    options: dict[str, Any] = {
        "placement": placement,
        "replicas": replicas,
        "direct_ports": direct_ports,
    }
    given = {name: value for name, value in options.items() if value is not None}
    given |= as_urls(models, catalog, stores)
    findings = list(examine(directory, read_serve_config(config), given, host, port))
    table = Table(box=None, show_header=False, pad_edge=False)
    for finding in findings:
        table.add_row(_LABELS[finding.state], finding.name, finding.message)
    out.print(table)
    if any(finding.state == "error" for finding in findings):
        raise typer.Exit(1)


def examine(
    directory: Path, file: ServeConfig, options: dict[str, Any], host: str | None, port: int | None
) -> Iterator[Finding]:
    """Run all checks, and yield the result of each.

    `options`, `host` and `port` come from the command line, and take precedence over `file`. If the
    settings are invalid, no other check can run. Any other failed check does not stop the rest.
    """
    from kirana.graphs.serving import graph, max_replicas

    host = host or str(file.http.get("host", DEFAULT_HOST))
    port = port or int(file.http.get("port", DEFAULT_PORT))
    try:
        settings = local_settings(directory, options, {"direct_host": host, **file.arguments})
    except ConfigurationError as error:
        yield Finding("settings", "error", error.message)
        return
    features = without_password(settings.features)
    if settings.features_hot != OFF:
        features += f" behind {without_password(settings.features_hot)}"
    yield Finding("settings", "ok", f"{settings.placement}, features in {features}")
    yield _check(
        "deployments", lambda: graph(settings, file.deployments), "Serve accepts the options"
    )
    replicas = max_replicas(settings, file.deployments)
    yield _check("placement", lambda: check_placement(settings, replicas), "fits the stores")
    yield _check(
        "catalog", lambda: check_catalog(settings, directory), "valid, and all models can be used"
    )
    yield _check("space", lambda: check_space(settings), "enough")
    yield _check("stores", lambda: asyncio.run(check_stores(settings)), "can be opened")
    yield _acknowledgements(settings)
    yield from _ports(directory, settings, host, port)
    yield _memory()
    yield _native()
    yield from _running_rays()


def _check(name: str, check: Callable[[], object], success: str) -> Finding:
    """Run a check, and return `success` or its error as a finding."""
    try:
        check()
    except KiranaError as error:
        return Finding(name, "error", error.message)
    except Exception as error:
        # An unexpected error in one check must not hide the results of the others.
        return Finding(name, "error", f"{type(error).__name__}: {error}")
    return Finding(name, "ok", success)


def _acknowledgements(settings: Settings) -> Finding:
    """Say what an acknowledged write of features is worth."""
    name = "acknowledgements"
    try:
        durability = asyncio.run(_durability(settings))
    except KiranaError as error:
        return Finding(name, "warning", f"it is not known what they are worth: {error.message}")
    return Finding(name, "ok" if durability.safe else "warning", durability.text)


async def _durability(settings: Settings) -> Durability:
    store = open_store(settings)
    try:
        return await store.durability()
    finally:
        await store.close()


def _ports(directory: Path, settings: Settings, host: str, port: int) -> Iterator[Finding]:
    instance = Instance(directory)
    state = instance.read()
    if instance.is_held() and state is not None:
        yield Finding("port", "warning", f"Kirana is already up for this directory: {state.url}")
        return
    yield _check("port", lambda: check_port(host, port), f"{host}:{port} is free")
    if settings.direct_range:
        success = f"at least one port of {settings.direct_ports} is free"
        yield _check("direct ports", lambda: check_direct_ports(settings), success)


def _memory() -> Finding:
    available = psutil.virtual_memory().available
    shared = shutil.disk_usage("/dev/shm").free if Path("/dev/shm").exists() else 0
    if available < MIN_MEMORY_BYTES:
        return Finding(
            "memory",
            "warning",
            f"only {available >> 20} MB are available, at least "
            f"{MIN_MEMORY_BYTES >> 20} MB are needed",
        )
    if shared < OBJECT_STORE_BYTES:
        return Finding(
            "memory",
            "warning",
            f"/dev/shm has {shared >> 20} MB free, but Ray needs {OBJECT_STORE_BYTES >> 20} MB: it "
            "will use the disk, which is slower",
        )
    return Finding("memory", "ok", f"{available >> 20} MB available, {shared >> 20} MB in /dev/shm")


def _native() -> Finding:
    if native.COMPILED:
        return Finding("native", "ok", "the inner loops are compiled")
    if os.environ.get("KIRANA_NATIVE") == "0":
        return Finding(
            "native", "warning", "KIRANA_NATIVE=0 turns the compiled loops off: reads are slower"
        )
    message = (
        "the inner loops are not compiled: reads are slower. Run 'apt-get install gcc "
        "python3-dev', then install Kirana again"
    )
    return Finding("native", "warning", message)


def _running_rays() -> Iterator[Finding]:
    """Check the environment of each Ray instance on this machine, if it can be read.

    `serve deploy` needs a Ray that was started with Kirana's variables, because they can't be
    changed later. If this process has variables of Serve, also check its own environment, which
    `ray start` in the same shell would inherit.
    """
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
            yield Finding(name, "warning", f"'serve deploy' to it would fail: {error.message}")
        else:
            yield Finding(name, "ok", "was started with the variables that Kirana needs")
    if any(name.startswith("RAY_SERVE_") for name in os.environ):
        yield _check(
            "environment",
            require_serve_environment,
            "this shell has the variables that 'ray start' needs",
        )
