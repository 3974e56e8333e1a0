"""Calls between processes: results, errors, deadlines, and the ledger."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Awaitable, Callable

import pytest

from kirana.errors import DeadlineExceeded, InvalidInput, KiranaError
from kirana.hop import Outcome, outcome_of, value_of
from kirana.request import RequestContext, current_id
from kirana.revision import Revision


def begin(timeout_s: float = 60.0) -> RequestContext:
    return RequestContext.begin(Revision("shop", 1), timeout_s=timeout_s)


async def hop(
    context: RequestContext, work: Callable[[RequestContext], Awaitable[object]]
) -> object:
    """Run `work` as another process would: with pickled copies of the context and the outcome."""
    arrived: RequestContext = pickle.loads(pickle.dumps(context))
    outcome = await outcome_of("features", lambda: work(arrived), arrived)
    returned: Outcome = pickle.loads(pickle.dumps(outcome))
    return value_of(returned, context)


async def test_the_value_is_returned_and_the_work_knows_the_request_id() -> None:
    async def work(context: RequestContext) -> str:
        return f"{context.id} {current_id.get()}"

    context = begin()
    assert await hop(context, work) == f"{context.id} {context.id}"


async def test_an_error_keeps_its_type_and_field() -> None:
    async def work(context: RequestContext) -> None:
        raise InvalidInput("no such thing", field="keys[3]")

    with pytest.raises(InvalidInput, match="no such thing") as caught:
        await hop(begin(), work)
    assert caught.value.field == "keys[3]"


async def test_an_error_that_is_not_a_kirana_error_is_raised_where_it_occurs() -> None:
    async def work(context: RequestContext) -> None:
        raise TimeoutError("of a socket")

    with pytest.raises(TimeoutError, match="of a socket"):
        await hop(begin(), work)


@pytest.mark.parametrize("error", [None, InvalidInput("no")])
async def test_the_remote_ledger_is_added_to_the_local_one(error: KiranaError | None) -> None:
    async def work(context: RequestContext) -> None:
        context.ledger.retries += 2
        context.ledger.hedges += 1
        if error is not None:
            raise error

    context = begin()
    context.ledger.retries = 5
    for _ in range(2):
        try:
            await hop(context, work)
        except InvalidInput:
            assert error is not None
    assert (context.ledger.retries, context.ledger.hedges) == (9, 2)


async def test_work_is_cancelled_at_the_deadline_and_the_error_names_the_part() -> None:
    cancelled_ids = []

    async def work(context: RequestContext) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled_ids.append(context.id)

    context = begin(timeout_s=0.02)
    with pytest.raises(DeadlineExceeded, match="features"):
        await hop(context, work)
    assert cancelled_ids == [context.id]


async def test_a_call_that_arrives_after_its_deadline_is_not_started() -> None:
    started = []

    async def work(context: RequestContext) -> None:
        started.append(context)

    with pytest.raises(DeadlineExceeded, match="features"):
        await hop(begin(timeout_s=-1.0), work)
    assert started == []
