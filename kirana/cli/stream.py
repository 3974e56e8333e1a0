"""The `kirana stream` commands: messages of the feature stream that were refused."""

from __future__ import annotations

import time
from collections import Counter
from typing import Annotated

import typer

from kirana.cli.console import err, out
from kirana.cli.interrupts import run_until_interrupted
from kirana.cli.locations import CatalogDirectory, as_urls, local_settings
from kirana.cli.remote import AsJson, print_json, print_table
from kirana.cli.store_options import store_option
from kirana.errors import ConfigurationError
from kirana.kafka.dead_letters import Letter, dead_letters_of
from kirana.kafka.url import KafkaUrl
from kirana.part import OFF
from kirana.serving.parts import PARTS, store_settings
from kirana.streams.part import parse_stream
from kirana.streams.topics import dead_letters

stream = typer.Typer(help="Look after the feature stream.", no_args_is_help=True)

StreamUrl = Annotated[str | None, store_option(store_settings(PARTS)["streams"])]


@stream.command()
def dead(directory: CatalogDirectory, streams: StreamUrl = None, as_json: AsJson = False) -> None:
    """List the messages that were refused, with the reasons, and not sent again."""
    letters = run_until_interrupted(_waiting(_stream_of(directory, streams)))
    rows = [[letter.origin, _time(letter.record.timestamp), letter.reason] for letter in letters]
    if as_json:
        fields = ("origin", "time", "reason")
        print_json([dict(zip(fields, row, strict=True)) for row in rows])
        return
    print_table(["message", "time", "reason"], rows, footer=f"{len(rows)} dead letters")


@stream.command()
def resend(
    directory: CatalogDirectory,
    streams: StreamUrl = None,
) -> None:
    """Send the messages that were refused again, each with its own time.

    Do this once their reason is gone, for example after 'kirana apply' with the group that they
    name. A message that is refused again becomes a new dead letter.
    """
    sent: Counter[str] = Counter()
    try:
        run_until_interrupted(_send_again(_stream_of(directory, streams), sent))
    finally:
        for reason, count in sent.most_common():
            err.print(f"{count} x {reason}", markup=False)
        out.print(f"{sent.total()} messages were sent again")


def _stream_of(directory: CatalogDirectory, streams: str | None) -> KafkaUrl:
    options = as_urls(stores={"streams": streams})
    settings = local_settings(directory, options, uses=("streams",))
    if settings.streams == OFF:
        raise ConfigurationError(
            "streams: no stream is given: use --streams or KIRANA_STREAMS", field="streams"
        )
    return parse_stream(settings.streams)


async def _waiting(url: KafkaUrl) -> list[Letter]:
    async with dead_letters_of(url, dead_letters(url)) as letters:
        return [letter async for letter in letters.waiting()]


async def _send_again(url: KafkaUrl, sent: Counter[str]) -> None:
    async with dead_letters_of(url, dead_letters(url)) as letters:
        async for letter in letters.waiting():
            await letters.send_again(letter)
            sent[letter.reason] += 1


def _time(timestamp_ms: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(timestamp_ms / 1_000))
