"""`kirana up`."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer
import yaml

from kirana.cli.catalog import publish, report
from kirana.cli.cluster import cluster, deploy, require_free_port
from kirana.cli.console import err
from kirana.cli.instance import Instance
from kirana.cli.locations import (
    CatalogDirectory,
    FeatureStoreUrl,
    ModelRoot,
    as_urls,
    local_settings,
)
from kirana.errors import ConfigurationError
from kirana.interactions.open import open_interaction_store
from kirana.serve_environment import LOG_FILE
from kirana.settings import Settings
from kirana.stores import open_feature_store

DEFAULT_CONFIG = Path("serve_config.yaml")


def up(
    directory: CatalogDirectory,
    config: Annotated[
        Path | None,
        typer.Option(help="A Serve configuration. [default: serve_config.yaml, if it is here]"),
    ] = None,
    host: Annotated[str | None, typer.Option(help="Where to listen. [default: 127.0.0.1]")] = None,
    port: Annotated[int | None, typer.Option(help="Where to listen. [default: 8000]")] = None,
    placement: Annotated[
        str | None, typer.Option(help="fused (one replica has all parts) or spread.")
    ] = None,
    replicas: Annotated[int | None, typer.Option(help="How many replicas the ingress has.")] = None,
    features: FeatureStoreUrl = None,
    interactions: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="The interaction store. [default: LMDB in DIR/.kirana/data]"
        ),
    ] = None,
    models: ModelRoot = None,
) -> None:
    """Publish a catalog and serve it over HTTP, until Ctrl-C or 'kirana down'."""
    http, arguments = _read_config(config)
    options = {"placement": placement, "replicas": replicas, "interactions": interactions}
    given = {name: value for name, value in options.items() if value is not None}
    settings = local_settings(directory, {**arguments, **as_urls(models, features), **given})
    host = host or str(http.get("host", "127.0.0.1"))
    port = port or int(http.get("port", 8000))
    _end_on(signal.SIGTERM)
    instance = Instance(directory)
    with instance.hold(f"http://{host}:{port}") as state:
        note = partial(instance.note_processes, state)
        require_free_port(host, port)
        report(publish(settings))
        asyncio.run(_try_stores(settings))
        log = instance.home / "kirana.log"
        os.environ[LOG_FILE] = str(log)
        with ExitStack() as stack:
            with err.status("starting Ray and Serve"):
                stack.enter_context(cluster(host, port, Path(state.folder), note))
                deploy(settings)
                note()
            err.print(f"Kirana is up at {state.url} ({settings.placement}); Ctrl-C stops it")
            err.print(f"What it has to say is in {log}", markup=False)
            try:
                _wait()
            finally:
                _ignore_signals()
                err.print("stopping")


def _read_config(path: Path | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return `http_options`, and `args` of the application, of a Serve configuration."""
    if path is None:
        if not DEFAULT_CONFIG.is_file():
            return {}, {}
        path = DEFAULT_CONFIG
    try:
        content = yaml.safe_load(path.read_text())
        arguments = content["applications"][0].get("args") or {}
        return dict(content.get("http_options") or {}), dict(arguments)
    except (OSError, yaml.YAMLError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise ConfigurationError(f"{path} is no Serve configuration: {error}") from None


async def _try_stores(settings: Settings) -> None:
    """Open what the replicas will open: an error shows here, and not as endless restarts."""
    await open_feature_store(settings.features).close()
    await open_interaction_store(settings.interactions).close()


def _end_on(number: signal.Signals) -> None:
    def end(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(number, end)


def _ignore_signals() -> None:
    """Ending must not be ended half-way by an impatient second Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _wait() -> None:
    threading.Event().wait()
