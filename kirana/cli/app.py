"""The command-line application. It turns exceptions into messages and exit codes."""

from __future__ import annotations

import sys

import typer

from kirana import __version__
from kirana.cli.archive import archive
from kirana.cli.catalog import apply, check
from kirana.cli.console import out, show_error
from kirana.cli.demo import demo
from kirana.cli.doctor import doctor
from kirana.cli.down import down
from kirana.cli.env import env
from kirana.cli.flow import flow
from kirana.cli.get import get
from kirana.cli.history import history
from kirana.cli.infer import infer
from kirana.cli.interactions import interactions
from kirana.cli.push import push
from kirana.cli.stream import stream
from kirana.cli.up import up
from kirana.errors import CatalogError, DeadlineExceeded, KiranaError, Unavailable

app = typer.Typer(
    name="kirana",
    help="Real-time ML serving for marketplaces on Ray Serve.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        out.print(f"kirana {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(
        False, "--version", callback=_show_version, is_eager=True, help="Print the version."
    ),
) -> None:
    pass


for command in (
    check,
    apply,
    push,
    archive,
    history,
    up,
    down,
    doctor,
    env,
    demo,
    get,
    interactions,
    infer,
):
    app.command()(command)
app.add_typer(flow, name="flow")
app.add_typer(stream, name="stream")


def run() -> None:
    """Run the command line and exit.

    The exit code is 0 on success, 2 for wrong usage, 3 for `Unavailable` and `DeadlineExceeded`, 1
    for any other error, and 130 after Ctrl-C. After a 3, the same command may succeed later. Error
    messages go to stderr.
    """
    try:
        app()
    except CatalogError as error:
        for problem in error.problems:
            show_error(str(problem))
        sys.exit(1)
    except KiranaError as error:
        show_error(str(error))
        sys.exit(3 if isinstance(error, Unavailable | DeadlineExceeded) else 1)
    except OSError as error:
        # For example, a disk is full or a file can't be read. A traceback would not help the user.
        show_error(str(error))
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
