"""`kirana flow run`."""

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


@flow.callback()
def _flow() -> None:
    pass


@flow.command()
def run(
    name: Annotated[str, typer.Argument(autocompletion=complete("flow"))],
    context: Context = None,
    trace: Annotated[bool, typer.Option("--trace", help="Show what each node did.")] = False,
    url: Url = DEFAULT_URL,
    timeout_ms: TimeoutMs = 5_000,
    as_json: AsJson = False,
) -> None:
    """Run a flow and show its list, best first: kirana flow run for_you -c user_id=7"""
    with connected(url, timeout_ms) as client:
        ran = client.run_flow(name, parse_context(context, lists=True), trace=trace)
    columns = {each: spelled(values.tolist()) for each, values in ran.columns.items()}
    if as_json:
        record: dict[str, Any] = {"output": {"ids": ran.ids, **columns}, "revision": ran.revision}
        print_json({**record, "trace": ran.trace} if trace else record)
        return
    rows = [list(row) for row in zip(ran.ids, *columns.values(), strict=True)]
    print_table(["id", *columns], rows, dim=f"revision {ran.revision}")
    if trace:
        shown = ("node", "op", "state", "start_ms", "took_ms", "attempts", "size", "error")
        print()
        print_table(shown, [[span.get(each) for each in shown] for span in ran.trace])
