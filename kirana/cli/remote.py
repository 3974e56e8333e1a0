"""What the commands that ask a running Kirana have in common."""

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

Url = Annotated[
    str, typer.Option("--url", envvar=VARIABLE, help="Where Kirana listens.", show_default=True)
]
TimeoutMs = Annotated[
    int, typer.Option("--timeout-ms", min=1, max=600_000, help="For the whole call.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Context = Annotated[
    list[str] | None,
    typer.Option(
        "--context", "-c", metavar="NAME=ID[,ID...]", help="An id of the request, or a list of ids."
    ),
]


@contextmanager
def connected(url: str, timeout_ms: int) -> Iterator[Client]:
    from kirana.client import Client

    if not url.startswith(("http://", "https://")):
        raise InvalidInput(f"'{url}' is not like {DEFAULT_URL}", field="url")
    with Client(url, timeout_s=timeout_ms / 1000, direct=False, caller="kirana-cli") as client:
        yield client


def complete(kind: str) -> Callable[[str], list[str]]:
    """Return what the shell offers: the names of a kind that are live."""

    def names(incomplete: str) -> list[str]:
        from kirana.client import Client

        url = os.environ.get(VARIABLE, DEFAULT_URL)
        try:
            with Client(
                url, timeout_s=COMPLETION_TIMEOUT_S, direct=False, caller="kirana-cli"
            ) as client:
                found = client.catalog(history=0).objects.get(kind, ())
        except KiranaError:
            return []
        return [name for name in found if name.startswith(incomplete)]

    return names


def parse_context(given: Sequence[str] | None, *, lists: bool) -> dict[str, Any]:
    """Turn `user_id=7` and `product_id=1,2` into a context. Raises `InvalidInput`."""
    context: dict[str, Any] = {}
    for each in given or ():
        name, equals, value = each.partition("=")
        if not equals or not name:
            raise InvalidInput(f"'{each}' is not of the form NAME=ID", field="context")
        if name in context:
            raise InvalidInput(f"'{name}' is given twice", field="context")
        context[name] = value.split(",") if lists and "," in value else value
    return context


def print_json(value: object) -> None:
    """Indented where people read, one line where programs do."""
    option = orjson.OPT_SERIALIZE_NUMPY
    if sys.stdout.isatty():
        option |= orjson.OPT_INDENT_2
    sys.stdout.write(orjson.dumps(value, option=option).decode() + "\n")


def print_table(columns: Sequence[str], rows: Sequence[Sequence[Any]], *, dim: str = "") -> None:
    """Print rows; a `Text` keeps its style. What is piped is never folded."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in columns:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(each if isinstance(each, Text) else Text(shown(each)) for each in row))
    width = None if sys.stdout.isatty() else 1_000_000
    console = Console(highlight=False, width=width)
    console.print(table)
    if dim:
        console.print(Text(dim, style="dim"))


def shown(value: object) -> str:
    """Spell one cell: nothing for None, floats short, all that could move the cursor escaped."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        return "[" + " ".join(map(shown, value)) + "]"
    text = str(value)
    return text if text.isprintable() else text.encode("unicode_escape").decode()
