"""A call of a part that runs elsewhere: what the far end does, and what comes back of it."""

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
    """What a part answered: a value or an error, and what it spent of the request's ledger."""

    value: Any
    error: KiranaError | None
    spent: Ledger


async def outcome_of(
    part: str, work: Callable[[], Awaitable[Any]], context: RequestContext
) -> Outcome:
    """Do the work of a request that has arrived, for as long as it has time.

    Errors of ours are part of the outcome. Any other error is raised.
    """
    current_id.set(context.id)
    ledger = context.ledger
    retries, hedges = ledger.retries, ledger.hedges
    value: Any = None
    failure: KiranaError | None = None
    try:
        context.require_time(part)
        left = context.left_s()
        async with asyncio.timeout(None if left == math.inf else left) as timer:
            value = await work()
    except TimeoutError:
        if not timer.expired():
            raise
        failure = DeadlineExceeded(f"{part}: the deadline passed before it was done")
    except KiranaError as error:
        failure = error
        if error.__cause__ is not None:
            # the cause does not travel
            logger.warning("%s: %s", part, error, exc_info=error.__cause__)
    return Outcome(value, failure, Ledger(ledger.retries - retries, ledger.hedges - hedges))


def value_of(outcome: Outcome, context: RequestContext) -> Any:
    """Return the value, or raise the error; what was spent goes into the request's ledger."""
    context.ledger.retries += outcome.spent.retries
    context.ledger.hedges += outcome.spent.hedges
    if outcome.error is not None:
        raise outcome.error
    return outcome.value
