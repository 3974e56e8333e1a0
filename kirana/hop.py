"""Calls of a part or an actor in another process: run the call there, and unpack its outcome."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from kirana.errors import DeadlineExceeded, KiranaError
from kirana.request import Ledger, RequestContext, current_id

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a call: a value or an error, and the retries and hedged calls that it used."""

    value: Any
    error: KiranaError | None
    spent: Ledger


async def outcome_of(
    part: str, work: Callable[[], Awaitable[Any]], context: RequestContext
) -> Outcome:
    """Run `work` for a request from another process, and return its outcome.

    If `work` raises a `KiranaError`, the outcome holds the error. If the deadline of the request
    passes, `work` is cancelled, or not started, and the outcome holds `DeadlineExceeded`. Any other
    error is raised. This sets the request id for the log lines of the current task. `part` names
    the part or the actor in messages.
    """
    current_id.set(context.id)
    ledger = context.ledger
    retries_before, hedges_before = ledger.retries, ledger.hedges
    value: Any = None
    failure: KiranaError | None = None
    try:
        context.require_time(part)
        left_s = context.left_s()
        async with asyncio.timeout(None if left_s == math.inf else left_s) as timer:
            value = await work()
    except TimeoutError:
        if not timer.expired():
            raise
        failure = DeadlineExceeded(f"{part}: the deadline passed before the call was done")
    except KiranaError as error:
        failure = error
        if error.__cause__ is not None:
            # Pickling the error drops its cause.
            logger.warning("%s: %s", part, error, exc_info=error.__cause__)
    return Outcome(
        value, failure, Ledger(ledger.retries - retries_before, ledger.hedges - hedges_before)
    )


def value_of(outcome: Outcome, context: RequestContext) -> Any:
    """Return the value of an outcome, or raise its error.

    Add the retries and hedged calls of the outcome to the ledger of `context`.
    """
    context.ledger.retries += outcome.spent.retries
    context.ledger.hedges += outcome.spent.hedges
    if outcome.error is not None:
        raise outcome.error
    return outcome.value
