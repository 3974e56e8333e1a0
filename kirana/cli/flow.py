"""The `kirana flow run` command."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from kirana.cli.remote import (
    DEFAULT_URL,
    AsJson,
    Context,
    TimeoutMs,
    Url,
    complete,
    connected,
    parse_context,
    print_json,
    print_table,
)
from kirana.schema import spelled

flow = typer.Typer(help="Run flows.", no_args_is_help=True)


@flow.command()
def run(
    name: Annotated[
        str, typer.Argument(help="The name of a flow.", autocompletion=complete("flow"))
    ],
    context: Context = None,
    trace: Annotated[bool, typer.Option("--trace", help="Show what each node did.")] = False,
    url: Url = DEFAULT_URL,
    timeout_ms: TimeoutMs = 5_000,
    as_json: AsJson = False,
) -> None:
    """Run a flow and print its output.

    For example: kirana flow run for_you -c user_id=7
    """
    with connected(url, timeout_ms) as client:
        result = client.run_flow(name, parse_context(context, lists=True), trace=trace)
    columns = {column: spelled(values.tolist()) for column, values in result.columns.items()}
    if as_json:
        record: dict[str, Any] = {
            "output": {"ids": result.ids, **columns},
            "revision": result.revision,
        }
        print_json({**record, "trace": result.trace} if trace else record)
        return
    rows = [list(row) for row in zip(result.ids, *columns.values(), strict=True)]
    print_table(["id", *columns], rows, footer=f"revision {result.revision}")
    if trace:
        fields = ("node", "op", "state", "start_ms", "took_ms", "attempts", "size", "error")
        print()
        print_table(fields, [[span.get(field) for field in fields] for span in result.trace])
