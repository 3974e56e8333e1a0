"""The `kirana interactions` command."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

import orjson
import typer

from kirana.cli.remote import (
    DEFAULT_URL,
    AsJson,
    TimeoutMs,
    Url,
    complete,
    connected,
    print_json,
    print_table,
)
from kirana.errors import InvalidInput


def interactions(
    user_id: Annotated[str, typer.Argument(help="The id of a user.")],
    event: Annotated[
        str,
        typer.Argument(help="The name of an event type.", autocompletion=complete("event_type")),
    ],
    last: Annotated[
        int | None,
        typer.Option(min=1, help="How many events to show. Default: 20 without a range."),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="The start of a range, inclusive: Unix milliseconds, or a time like "
            "2026-11-24T08:00, which is in UTC unless it has an offset.",
        ),
    ] = None,
    until: Annotated[
        str | None, typer.Option(metavar="TIME", help="The end of the range, inclusive.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="The maximum number of events in a range.")
    ] = None,
    url: Url = DEFAULT_URL,
    timeout_ms: TimeoutMs = 5_000,
    as_json: AsJson = False,
) -> None:
    """List the events of a user and an event type, newest first."""
    bounds = {"since": _milliseconds(since, "since"), "until": _milliseconds(until, "until")}
    with connected(url, timeout_ms) as client:
        history = client.interactions(user_id, event, last=last, limit=limit, **bounds)
    times = history.timestamps.tolist()
    if as_json:
        records: list[dict[str, Any]] = []
        for product, time, metadata in zip(
            history.product_ids, times, history.metadata, strict=True
        ):
            record: dict[str, Any] = {"product_id": product, "timestamp": time}
            records.append(record if metadata is None else {**record, "metadata": metadata})
        print_json({"interactions": records})
        return
    rows = [
        [product, _time(time), time, None if data is None else orjson.dumps(data).decode()]
        for product, time, data in zip(history.product_ids, times, history.metadata, strict=True)
    ]
    columns = ["product_id", "time (UTC)", "timestamp", "metadata"]
    print_table(columns, rows, footer=f"{len(rows)} '{event}' events of user {user_id}")


def _milliseconds(text: str | None, name: str) -> int | None:
    """Return a time as Unix milliseconds, None for None. It is in UTC unless it has an offset.

    Raise `InvalidInput` if `text` is not a time. `name` is the option whose value it is.
    """
    if text is None:
        return None
    if text.isascii() and text.isdecimal():
        return int(text)
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidInput(
            f"must be Unix milliseconds, or a time like 2026-11-24T08:00, not '{text}'",
            field=name,
        ) from None
    return int((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp() * 1000)


def _time(milliseconds: int) -> str:
    """Return Unix milliseconds as a date and time in UTC, or an empty text if out of range."""
    try:
        time = datetime.fromtimestamp(milliseconds / 1000, UTC)
    except (OverflowError, ValueError, OSError):
        return ""
    return time.strftime("%Y-%m-%d %H:%M:%S")
