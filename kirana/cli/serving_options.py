"""The options that `kirana up` and `kirana doctor` share: what to serve, and where."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8000

ServeFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="Serve as 'serve deploy FILE' would: its settings, replicas and options.",
    ),
]
Host = Annotated[
    str | None, typer.Option("--host", help=f"Where to listen. Default: {DEFAULT_HOST}.")
]
Port = Annotated[
    int | None,
    typer.Option("--port", min=1, max=65_535, help=f"Where to listen. Default: {DEFAULT_PORT}."),
]
Placement = Annotated[
    str | None,
    typer.Option(
        "--placement",
        help="fused (each replica has all parts), spread (each part is a deployment), or "
        "parts by name: models=spread,features=spread. Default: fused.",
    ),
]
Replicas = Annotated[
    int | None, typer.Option("--replicas", help="How many replicas the ingress has.")
]
DirectPorts = Annotated[
    str | None,
    typer.Option(
        "--direct-ports",
        metavar="RANGE",
        help="Where each replica also listens itself, or 'off'. Default: 20000-20999.",
    ),
]
