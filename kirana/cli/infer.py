"""`kirana infer`."""

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
        str, typer.Argument(help="An inferflow.", autocompletion=complete("inferflow"))
    ],
    context: Context = None,
    top_k: Annotated[
        int | None, typer.Option("--top-k", "-k", min=1, help="The best so many, best first.")
    ] = None,
    outputs: Annotated[bool, typer.Option("--outputs", help="Show what each model gave.")] = False,
    matrix: Annotated[
        bool, typer.Option("--matrix", help="Show the features that the models saw.")
    ] = False,
    url: Url = DEFAULT_URL,
    timeout_ms: TimeoutMs = 5_000,
    as_json: AsJson = False,
) -> None:
    """Score rows by an inferflow: kirana infer ranker -c user_id=7 -c product_id=1,2,3"""
    ids = parse_context(context, lists=True)
    with connected(url, timeout_ms) as client:
        rows_of = client.get_object("inferflow", model_id).object["rows"]
        if isinstance(ids.get(rows_of), str):
            ids[rows_of] = [ids[rows_of]]
        found = client.infer(model_id, ids, top_k=top_k, outputs=outputs, matrix=matrix)
    columns = {"score": _plain(found.scores)}
    columns |= {name: _plain(values) for name, values in found.outputs.items()}
    rows = [] if found.matrix is None else _plain(found.matrix)
    if as_json:
        record: dict[str, Any] = {"ids": found.ids, "scores": columns.pop("score")}
        record |= {"defaults": found.defaults, "revision": found.revision}
        if outputs:
            record["outputs"] = columns
        if matrix:
            record["matrix"] = {"columns": found.columns, "rows": rows}
        print_json(record)
        return
    table = [list(row) for row in zip(found.ids, *columns.values(), strict=True)]
    if matrix:
        table = [[*left, *right] for left, right in zip(table, rows, strict=True)]
    told = ", ".join(f"{count} rows of {group}" for group, count in sorted(found.defaults.items()))
    note = f"revision {found.revision}" + (f"; defaults for {told}" if told else "")
    print_table(["id", *columns, *found.columns], table, dim=note)


def _plain(values: Array) -> list[Any]:
    # a float32 has fewer digits than the double that it would become
    plain: list[Any] = spelled(values.astype(str).astype(np.float64).tolist())
    return plain
