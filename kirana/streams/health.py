"""The health of the streams part: what its actors say."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec

from kirana.errors import Unavailable
from kirana.service import Health
from kirana.streams.source import ArchiveReport, ConsumerReport


async def health_of(consumers: Sequence[Any], archivers: Sequence[Any]) -> Health:
    """Ask all actors. The part is unavailable if one of them can't go on."""
    answers = await asyncio.gather(*map(_report_of, [*consumers, *archivers]))
    problems = [problem for problem, _ in answers if problem]
    details: dict[str, Any] = {}
    if consumers:
        found = [report for _, report in answers if isinstance(report, ConsumerReport)]
        details["consumers"] = msgspec.to_builtins(found)
        lags = [report.lag for report in found]
        if len(lags) == len(consumers) and None not in lags:
            details["lag"] = sum(filter(None, lags))
    for _, report in answers:
        if isinstance(report, ArchiveReport):
            details["archive"] = msgspec.to_builtins(report)
    return Health(problems[0] if problems else None, details)


async def _report_of(actor: Any) -> tuple[str, ConsumerReport | ArchiveReport | None]:
    """Return why an actor can't go on, or "", and its state, None if it does not answer."""
    try:
        answer: tuple[str, ConsumerReport | ArchiveReport] = await actor.report()
    except Unavailable as error:
        return error.message, None
    return answer
