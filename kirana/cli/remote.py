"""Options, client and output of the commands that call a running Kirana."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from kirana.errors import InvalidInput, KiranaError

if TYPE_CHECKING:
    from kirana.client import Client

DEFAULT_URL = "http://127.0.0.1:8000"
VARIABLE = "KIRANA_URL"
COMPLETION_TIMEOUT_S = 0.5
"""Seconds that a shell completion waits for Kirana."""

Url = Annotated[
    str, typer.Option("--url", envvar=VARIABLE, help="The URL of Kirana.", show_default=True)
]
TimeoutMs = Annotated[
    int,
    typer.Option(
        "--timeout-ms",
        min=1,
        max=600_000,
        help="The time limit of each call to Kirana, in milliseconds.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Context = Annotated[
    list[str] | None,
    typer.Option(
        "--context",
        "-c",
        metavar="NAME=ID[,ID...]",
        help="An id of the context, or a list of ids. Repeat the option for more.",
    ),
]


@contextmanager
def connected(url: str, timeout_ms: int) -> Iterator[Client]:
    """Yield a client of the Kirana at `url`, with a timeout for each call.

    Raise `InvalidInput` if `url` is not an HTTP URL.
    """
    from kirana.client import Client

    if not url.startswith(("http://", "https://")):
        raise InvalidInput(f"must be an HTTP URL such as {DEFAULT_URL}, not '{url}'", field="url")
    with Client(url, timeout_s=timeout_ms / 1000, direct=False, caller="kirana-cli") as client:
        yield client


def complete(kind: str) -> Callable[[str], list[str]]:
    """Return a shell completion for the names of all live objects of a kind.

    It offers no names if Kirana returns an error, or no answer within `COMPLETION_TIMEOUT_S`.
    """

    def complete_name(incomplete: str) -> list[str]:
        from kirana.client import Client

        url = os.environ.get(VARIABLE, DEFAULT_URL)
        try:
            with Client(
                url, timeout_s=COMPLETION_TIMEOUT_S, direct=False, caller="kirana-cli"
            ) as client:
                live_names = client.catalog(history=0).objects.get(kind, ())
        except KiranaError:
            return []
        return [name for name in live_names if name.startswith(incomplete)]

    return complete_name


def parse_context(given: Sequence[str] | None, *, lists: bool) -> dict[str, Any]:
    """Return the context of a request from options like `user_id=7` and `product_id=1,2`.

    With `lists`, a value with a comma becomes a list.

    Raise `InvalidInput` if an option does not have this form, or a name is given twice.
    """
    context: dict[str, Any] = {}
    for option in given or ():
        name, equals, value = option.partition("=")
        if not equals or not name:
            raise InvalidInput(f"must be NAME=ID, not '{option}'", field="context")
        if name in context:
            raise InvalidInput(f"'{name}' is given twice", field="context")
        context[name] = value.split(",") if lists and "," in value else value
    return context


def print_json(value: object) -> None:
    """Print JSON to stdout: indented on a terminal, on one line otherwise."""
    option = orjson.OPT_SERIALIZE_NUMPY
    if sys.stdout.isatty():
        option |= orjson.OPT_INDENT_2
    sys.stdout.write(orjson.dumps(value, option=option).decode() + "\n")


def print_table(columns: Sequence[str], rows: Sequence[Sequence[Any]], *, footer: str = "") -> None:
    """Print a table to stdout, with the line `footer` below it in a dim style.

    A cell that is a `Text` keeps its style. Long cells are folded only on a terminal.
    """
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in columns:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else Text(cell_text(cell)) for cell in row))
    width = None if sys.stdout.isatty() else 1_000_000
    console = Console(highlight=False, width=width)
    console.print(table)
    if footer:
        console.print(Text(footer, style="dim"))


def cell_text(value: object) -> str:
    """Return the text that shows a value in a table.

    None becomes an empty text, and a float is rounded to six significant digits. A list is in
    brackets, its entries separated by spaces. A text with characters that are not printable is
    escaped, because they could control the terminal.
    """
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        return "[" + " ".join(map(cell_text, value)) + "]"
    text = str(value)
    return text if text.isprintable() else text.encode("unicode_escape").decode()
