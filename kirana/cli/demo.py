"""`kirana demo`."""

from __future__ import annotations

import signal
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from kirana.errors import ConfigurationError


def demo(
    report: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the figures here, as JSON.")
    ] = None,
    port: Annotated[int, typer.Option(help="Where Kirana listens.")] = 8000,
    points: Annotated[int, typer.Option(min=1, help="How many lists are asked for.")] = 1_000,
    train_points: Annotated[
        int, typer.Option(min=50, help="How many requests of the past the rankers learn from.")
    ] = 4_000,
    workdir: Annotated[
        Path, typer.Option(metavar="DIR", help="Where the demo keeps its files.")
    ] = Path(".demo"),
    cache: Annotated[Path, typer.Option(metavar="DIR", help="Where downloads are kept.")] = Path(
        ".cache"
    ),
    keep: Annotated[bool, typer.Option("--keep", help="Stay up afterwards.")] = False,
) -> None:
    """Rank real films for real users: MovieLens 100K, from raw events to lists over HTTP."""
    try:
        from kirana.demo.run import DemoOptions, run_demo
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"the demo needs '{error.name}': install it with pip install 'kirana[demo]'"
        ) from None

    def end(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, end)
    run_demo(DemoOptions(workdir, cache, port, points, train_points, report, keep))
