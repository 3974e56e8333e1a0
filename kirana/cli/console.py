"""Output for people: results go to stdout, everything else goes to stderr."""

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
    """Return a progress bar on stderr. It shows nothing if stderr is not a terminal."""
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
    """Print an error to stderr."""
    err.print("[bold red]error:[/] ", end="")
    err.print(message, markup=False)


def show_warning(message: str) -> None:
    """Print a warning to stderr."""
    err.print("[bold yellow]warning:[/] ", end="")
    err.print(message, markup=False)


def own_command() -> str:
    """Return a command that starts this program, for hints in messages."""
    program = Path(sys.argv[0])
    if program.name == "__main__.py":
        return f"{sys.executable} -m kirana"
    on_path = shutil.which(program.name)
    return program.name if on_path and Path(on_path).samefile(program) else str(program)
