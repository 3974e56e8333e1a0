"""The `kirana get` command."""

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
    cell_text,
    complete,
    connected,
    print_json,
    print_table,
)
from kirana.errors import InvalidInput, Unknown
from kirana.key_texts import split_key_text
from kirana.schema import spelled

if TYPE_CHECKING:
    from kirana.client import Client, Features


def get(
    entity: Annotated[
        str, typer.Argument(help="The name of an entity.", autocompletion=complete("entity"))
    ],
    keys: Annotated[
        list[str],
        typer.Argument(
            metavar="KEY...", help="Keys, one per row. Join the values of a compound key with '|'."
        ),
    ],
    features: Annotated[
        list[str] | None,
        typer.Option(
            "--feature",
            "-f",
            metavar="GROUP.FEATURE",
            help="A feature to read; repeat the option for more. Default: all.",
        ),
    ] = None,
    provenance: Annotated[
        bool, typer.Option("--provenance", help="Show where each value comes from.")
    ] = False,
    url: Url = DEFAULT_URL,
    timeout_ms: TimeoutMs = 5_000,
    as_json: AsJson = False,
) -> None:
    """Read features of an entity, and print one row per key.

    A value is followed by the status of its stored row, unless the status is 'ok'.
    """
    with connected(url, timeout_ms) as client:
        names = features or _all_features(client, entity)
        key_columns = _key_columns(client, entity, keys)
        reply = client.get_features(entity, key_columns, names, provenance=provenance)
    columns = [_plain_values(reply, name) for name in names]
    if as_json:
        status = {group: reply.status(group) for group in reply.codes}
        record: dict[str, Any] = {"keys": keys, "features": names, "dtypes": reply.dtypes}
        record |= {"values": list(map(list, zip(*columns, strict=True))), "status": status}
        if provenance:
            record["provenance"] = {name: reply.provenance(name) for name in names}
            record["tier"] = {group: reply.tier(group) for group in reply.tier_codes}
        print_json({**record, "revision": reply.revision})
        return
    status_of = {group: reply.status(group) for group in reply.codes}
    rows: list[list[Any]] = []
    for position, key in enumerate(keys):
        row: list[Any] = [key]
        for name, column in zip(names, columns, strict=True):
            row.append(_cell(reply, name, column[position], position, status_of))
        rows.append(row)
    bad_counts = {g: sum(state != "ok" for state in s) for g, s in status_of.items()}
    not_ok = "; ".join(
        f"{group}: {n} of {len(keys)} not ok" for group, n in sorted(bad_counts.items()) if n
    )
    footer = f"revision {reply.revision}" + (f"; {not_ok}" if not_ok else "")
    print_table(["key", *names], rows, footer=footer)


def _cell(
    features: Features, name: str, value: Any, position: int, status: dict[str, list[str]]
) -> Text:
    """Return the table cell for one value.

    The status of the row follows the value unless it is "ok", and the provenance follows if the
    reply has it. `name` is the feature, and `position` is the row in `features`.
    """
    state = status[name.partition(".")[0]][position]
    text = Text(cell_text(value))
    if state != "ok":
        text = Text(f"{cell_text(value)} ({state})", style="yellow")
    elif value is None:
        text = Text("null", style="dim")
    if features.provenance_codes:
        text.append(f" {features.provenance(name)[position]}", style="dim")
    return text


def _plain_values(features: Features, name: str) -> list[Any]:
    """Return the values of a feature as plain Python values, which can be written as JSON."""
    column = features.column(name)
    values = column.values
    if values.dtype == np.float32:
        # Going through text keeps the digits of float32: 0.1, not 0.10000000149011612.
        values = values.astype(str).astype(np.float64)
    plain = values.tolist()
    for position in () if column.nulls is None else np.flatnonzero(column.nulls).tolist():
        plain[position] = None
    spelled_values: list[Any] = spelled(plain)
    return spelled_values


def _all_features(client: Client, entity: str) -> list[str]:
    """Return the names of all features of an entity, as `group.feature`.

    Raise `Unknown` if the entity does not exist, or `InvalidInput` if it has no feature group.
    """
    groups = client.catalog(history=0).objects["feature_group"]
    names = []
    for group in groups:
        if group.partition(".")[0] == entity:
            record = client.get_object("feature_group", group).object
            short_name = group.partition(".")[2]
            names += [f"{short_name}.{feature['name']}" for feature in record["features"]]
    if not names:
        client.get_object("entity", entity)  # Raises `Unknown`.
        raise InvalidInput(f"entity '{entity}' has no feature group", field="entity")
    return names


def _key_columns(client: Client, entity: str, key_texts: list[str]) -> dict[str, list[str]]:
    """Return the values of each key, by the name of the key, from texts like `7|books`.

    Raise `Unknown` if the entity does not exist, or `InvalidInput` if a text has the wrong number
    of values.
    """
    try:
        record = client.get_object("entity", entity).object
    except Unknown as error:
        error.path = ("entity",)
        raise
    key_names = [key["name"] for key in record["keys"]]
    if len(key_names) == 1:
        return {key_names[0]: key_texts}
    columns: dict[str, list[str]] = {name: [] for name in key_names}
    for text in key_texts:
        values = split_key_text(text)
        if len(values) != len(key_names):
            raise InvalidInput(f"must be {'|'.join(key_names)}, not '{text}'", field="keys")
        for name, value in zip(key_names, values, strict=True):
            columns[name].append(value)
    return columns
