"""The options of `kirana up` and `kirana doctor` that say how and where to serve."""

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
        help="Use the settings, replicas and options of this Serve configuration.",
    ),
]
Host = Annotated[
    str | None,
    typer.Option(
        "--host", help=f"The address to listen on. Default: that of --config, or {DEFAULT_HOST}."
    ),
]
Port = Annotated[
    int | None,
    typer.Option(
        "--port",
        min=1,
        max=65_535,
        help=f"The port to listen on. Default: that of --config, or {DEFAULT_PORT}.",
    ),
]
Placement = Annotated[
    str | None,
    typer.Option(
        "--placement",
        help="fused (each replica has all parts), spread (each part is a deployment), or "
        "parts by name: models=spread,features=spread. Default: fused.",
    ),
]
Replicas = Annotated[int | None, typer.Option("--replicas", help="The number of ingress replicas.")]
DirectPorts = Annotated[
    str | None,
    typer.Option(
        "--direct-ports",
        metavar="RANGE",
        help="The range of the replicas' direct ports, or 'off'. Default: 20000-20999.",
    ),
]
