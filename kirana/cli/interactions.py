"""`kirana interactions`."""

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
    user_id: str,
    event: Annotated[str, typer.Argument(autocompletion=complete("event_type"))],
    last: Annotated[
        int | None, typer.Option(min=1, help="How many events, the newest first. Default: 20.")
    ] = None,
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="From: ms, or like 2026-11-24T08:00.")
    ] = None,
    until: Annotated[str | None, typer.Option(metavar="TIME", help="To, included.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many of a range.")] = None,
    url: Url = DEFAULT_URL,
    timeout_ms: TimeoutMs = 5_000,
    as_json: AsJson = False,
) -> None:
    """Show what a user did, newest first."""
    bounds = {"since": _milliseconds(since, "since"), "until": _milliseconds(until, "until")}
    with connected(url, timeout_ms) as client:
        found = client.interactions(user_id, event, last=last, limit=limit, **bounds)
    times = found.timestamps.tolist()
    if as_json:
        records: list[dict[str, Any]] = []
        for product, time, metadata in zip(found.product_ids, times, found.metadata, strict=True):
            record: dict[str, Any] = {"product_id": product, "timestamp": time}
            records.append(record if metadata is None else {**record, "metadata": metadata})
        print_json({"interactions": records})
        return
    rows = [
        [product, _time(time), time, None if data is None else orjson.dumps(data).decode()]
        for product, time, data in zip(found.product_ids, times, found.metadata, strict=True)
    ]
    columns = ["product_id", "time (UTC)", "timestamp", "metadata"]
    print_table(columns, rows, dim=f"{len(rows)} {event} of user {user_id}")


def _milliseconds(text: str | None, name: str) -> int | None:
    if text is None:
        return None
    if text.isascii() and text.isdecimal():
        return int(text)
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidInput(
            f"'{text}' is not a time: give milliseconds since 1970, or a date like "
            "2026-11-24T08:00",
            field=name,
        ) from None
    return int((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp() * 1000)


def _time(milliseconds: int) -> str:
    try:
        time = datetime.fromtimestamp(milliseconds / 1000, UTC)
    except (OverflowError, ValueError, OSError):
        return ""
    return time.strftime("%Y-%m-%d %H:%M:%S")
