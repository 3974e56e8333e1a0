"""A call that crosses a hop: its errors, its time, and what it spends."""

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
    """Do `work` at a far end: what goes there and what comes back is pickled."""
    arrived: RequestContext = pickle.loads(pickle.dumps(context))
    outcome = await outcome_of("features", lambda: work(arrived), arrived)
    back: Outcome = pickle.loads(pickle.dumps(outcome))
    return value_of(back, context)


async def test_a_value_comes_back() -> None:
    async def work(context: RequestContext) -> str:
        return f"{context.id} {current_id.get()}"

    context = begin()
    assert await hop(context, work) == f"{context.id} {context.id}"


async def test_an_error_arrives_as_itself() -> None:
    async def work(context: RequestContext) -> None:
        raise InvalidInput("no such thing", field="keys[3]")

    with pytest.raises(InvalidInput, match="no such thing") as caught:
        await hop(begin(), work)
    assert caught.value.field == "keys[3]"


async def test_an_error_of_another_kind_is_no_outcome() -> None:
    async def work(context: RequestContext) -> None:
        raise TimeoutError("of a socket")

    with pytest.raises(TimeoutError, match="of a socket"):
        await hop(begin(), work)


@pytest.mark.parametrize("error", [None, InvalidInput("no")])
async def test_what_was_spent_there_is_added_here(error: KiranaError | None) -> None:
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


async def test_work_ends_at_the_deadline_and_says_which_part_was_late() -> None:
    ended = []

    async def work(context: RequestContext) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(context.id)

    context = begin(timeout_s=0.02)
    with pytest.raises(DeadlineExceeded, match="features"):
        await hop(context, work)
    assert ended == [context.id]


async def test_what_arrives_after_its_deadline_is_not_begun() -> None:
    begun = []

    async def work(context: RequestContext) -> None:
        begun.append(context)

    with pytest.raises(DeadlineExceeded, match="features"):
        await hop(begin(timeout_s=-1.0), work)
    assert begun == []
