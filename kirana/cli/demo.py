"""The `kirana demo` command."""

from __future__ import annotations

import signal
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from kirana.errors import ConfigurationError


def demo(
    report: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the results to this file, as JSON.")
    ] = None,
    port: Annotated[int, typer.Option(help="The port to listen on.")] = 8000,
    points: Annotated[int, typer.Option(min=1, help="How many lists to request.")] = 1_000,
    train_points: Annotated[
        int, typer.Option(min=50, help="How many past requests to train the rankers on.")
    ] = 4_000,
    workdir: Annotated[
        Path, typer.Option(metavar="DIR", help="The folder for the files of the demo.")
    ] = Path(".demo"),
    cache: Annotated[Path, typer.Option(metavar="DIR", help="The folder for downloads.")] = Path(
        ".cache"
    ),
    keep: Annotated[bool, typer.Option("--keep", help="Keep Kirana running afterwards.")] = False,
) -> None:
    """Rank real films for real users of MovieLens 100K.

    Compute features and train two models on past events, serve them over HTTP, replay the later
    events, and compare the lists with a popularity ranking.
    """
    try:
        from kirana.demo.run import DemoOptions, run_demo
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"the demo needs '{error.name}': install it with pip install 'kirana[demo]'"
        ) from None

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    run_demo(DemoOptions(workdir, cache, port, points, train_points, report, keep))
