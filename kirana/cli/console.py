"""What a person sees: results on stdout, everything else on stderr."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


def progress() -> Progress:
    """Return a progress bar on stderr; it stays away where stderr is no terminal."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=err,
        disable=not err.is_terminal,
    )


def show_error(message: str) -> None:
    err.print("[bold red]error:[/] ", end="")
    err.print(message, markup=False)


def show_warning(message: str) -> None:
    err.print("[bold yellow]warning:[/] ", end="")
    err.print(message, markup=False)


def own_command() -> str:
    """Return how this program was called, so that a hint can be typed as it stands."""
    called = Path(sys.argv[0])
    if called.name == "__main__.py":
        return f"{sys.executable} -m kirana"
    on_path = shutil.which(called.name)
    return called.name if on_path and Path(on_path).samefile(called) else str(called)
