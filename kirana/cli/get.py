"""`kirana get`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from rich.text import Text

from kirana.cli.remote import (
    DEFAULT_URL,
    AsJson,
    TimeoutMs,
    Url,
    complete,
    connected,
    print_json,
    print_table,
    shown,
)
from kirana.errors import InvalidInput, Unknown
from kirana.key_texts import split_key_text
from kirana.schema import spelled

if TYPE_CHECKING:
    from kirana.client import Client, Features


def get(
    entity: Annotated[str, typer.Argument(autocompletion=complete("entity"))],
    keys: Annotated[
        list[str],
        typer.Argument(metavar="KEY...", help="Keys; those of a compound entity joined by '|'."),
    ],
    features: Annotated[
        list[str] | None,
        typer.Option(
            "--feature", "-f", metavar="GROUP.FEATURE", help="Again for several. Default: all."
        ),
    ] = None,
    provenance: Annotated[
        bool, typer.Option("--provenance", help="Tell where each value comes from.")
    ] = False,
    url: Url = DEFAULT_URL,
    timeout_ms: TimeoutMs = 5_000,
    as_json: AsJson = False,
) -> None:
    """Read features of an entity, a row a key, with what became of each row."""
    with connected(url, timeout_ms) as client:
        names = features or _all_features(client, entity)
        by_name = _keys(client, entity, keys)
        found = client.get_features(entity, by_name, names, provenance=provenance)
    cells = [_cells(found, name) for name in names]
    if as_json:
        status = {group: found.status(group) for group in found.codes}
        record: dict[str, Any] = {"keys": keys, "features": names, "dtypes": found.dtypes}
        record |= {"values": list(map(list, zip(*cells, strict=True))), "status": status}
        if provenance:
            record["provenance"] = {name: found.provenance(name) for name in names}
            record["tier"] = {group: found.tier(group) for group in found.tier_codes}
        print_json({**record, "revision": found.revision})
        return
    status_of = {group: found.status(group) for group in found.codes}
    rows: list[list[Any]] = []
    for at, key in enumerate(keys):
        row: list[Any] = [key]
        for name, column in zip(names, cells, strict=True):
            row.append(_cell(found, name, column[at], at, status_of))
        rows.append(row)
    bad = {g: sum(each != "ok" for each in s) for g, s in status_of.items()}
    told = "; ".join(f"{group}: {n} of {len(keys)} not ok" for group, n in sorted(bad.items()) if n)
    print_table(
        ["key", *names], rows, dim=f"revision {found.revision}" + (f"; {told}" * bool(told))
    )


def _cell(found: Features, name: str, value: Any, at: int, status: dict[str, list[str]]) -> Text:
    state = status[name.partition(".")[0]][at]
    text = Text(shown(value))
    if state != "ok":
        text = Text(f"{shown(value)} ({state})", style="yellow")
    elif value is None:
        text = Text("null", style="dim")
    if found.provenance_codes:
        text.append(f" {found.provenance(name)[at]}", style="dim")
    return text


def _cells(found: Features, name: str) -> list[Any]:
    column = found.column(name)
    values = column.values
    if values.dtype == np.float32:
        # a float32 has fewer digits than the double that it would become
        cells: list[Any] = values.astype(str).astype(np.float64).tolist()
    else:
        cells = values.tolist()
    for at in () if column.nulls is None else np.flatnonzero(column.nulls).tolist():
        cells[at] = None
    plain: list[Any] = spelled(cells)
    return plain


def _all_features(client: Client, entity: str) -> list[str]:
    groups = client.catalog(history=0).objects["feature_group"]
    names = []
    for group in groups:
        if group.partition(".")[0] == entity:
            record = client.get_object("feature_group", group).object
            short = group.partition(".")[2]
            names += [f"{short}.{each['name']}" for each in record["features"]]
    if not names:
        client.get_object("entity", entity)
        raise InvalidInput(f"entity '{entity}' has no feature group", field="entity")
    return names


def _keys(client: Client, entity: str, keys: list[str]) -> dict[str, list[str]]:
    try:
        record = client.get_object("entity", entity).object
    except Unknown as error:
        error.path = ("entity",)
        raise
    wanted = [each["name"] for each in record["keys"]]
    if len(wanted) == 1:
        return {wanted[0]: keys}
    columns: dict[str, list[str]] = {name: [] for name in wanted}
    for text in keys:
        parts = split_key_text(text)
        if len(parts) != len(wanted):
            raise InvalidInput(f"'{text}' is not like {'|'.join(wanted)}", field="keys")
        for name, part in zip(wanted, parts, strict=True):
            columns[name].append(part)
    return columns
