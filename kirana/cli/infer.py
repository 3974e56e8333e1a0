"""The `kirana infer` command."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
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
from kirana.schema import Array, spelled


def infer(
    model_id: Annotated[
        str, typer.Argument(help="The name of an inferflow.", autocompletion=complete("inferflow"))
    ],
    context: Context = None,
    top_k: Annotated[
        int | None,
        typer.Option("--top-k", "-k", min=1, help="Show only the K best rows, best first."),
    ] = None,
    outputs: Annotated[
        bool, typer.Option("--outputs", help="Show the outputs of each model.")
    ] = False,
    matrix: Annotated[
        bool, typer.Option("--matrix", help="Show the feature matrix that the models read.")
    ] = False,
    url: Url = DEFAULT_URL,
    timeout_ms: TimeoutMs = 5_000,
    as_json: AsJson = False,
) -> None:
    """Score rows with an inferflow.

    For example: kirana infer ranker -c user_id=7 -c product_id=1,2,3
    """
    ids = parse_context(context, lists=True)
    with connected(url, timeout_ms) as client:
        row_key = client.get_object("inferflow", model_id).object["rows"]
        if isinstance(ids.get(row_key), str):
            ids[row_key] = [ids[row_key]]
        ranking = client.infer(model_id, ids, top_k=top_k, outputs=outputs, matrix=matrix)
    columns = {"score": _plain(ranking.scores)}
    columns |= {name: _plain(values) for name, values in ranking.outputs.items()}
    rows = [] if ranking.matrix is None else _plain(ranking.matrix)
    if as_json:
        record: dict[str, Any] = {"ids": ranking.ids, "scores": columns.pop("score")}
        record |= {"defaults": ranking.defaults, "revision": ranking.revision}
        if outputs:
            record["outputs"] = columns
        if matrix:
            record["matrix"] = {"columns": ranking.columns, "rows": rows}
        print_json(record)
        return
    table = [list(row) for row in zip(ranking.ids, *columns.values(), strict=True)]
    if matrix:
        table = [[*left, *right] for left, right in zip(table, rows, strict=True)]
    defaults = ", ".join(
        f"{count} rows of {group}" for group, count in sorted(ranking.defaults.items())
    )
    footer = f"revision {ranking.revision}" + (f"; defaults for {defaults}" if defaults else "")
    print_table(["id", *columns, *ranking.columns], table, footer=footer)


def _plain(values: Array) -> list[Any]:
    """Return an array as nested lists of plain values, which can be written as JSON."""
    # Going through text keeps the digits of float32: 0.1, not 0.10000000149011612.
    plain: list[Any] = spelled(values.astype(str).astype(np.float64).tolist())
    return plain
