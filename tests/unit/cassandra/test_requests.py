"""`Requests`: how many wait for a reply, their order, errors, and cancelled callers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from cassandra import InvalidRequest, OperationTimedOut

from kirana.cassandra.requests import INLINE_REQUESTS, MAX_FAILED, Requests
from tests.waiting import wait_until

STATEMENT: Any = "SELECT"


class Reply:
    """The driver's future of one request, which a test answers."""

    def __init__(self, parameters: Any) -> None:
        self.parameters = parameters

    def add_callbacks(
        self,
        callback: Callable[..., None],
        errback: Callable[..., None],
        callback_args: tuple[Any, ...],
        callback_kwargs: None,
        errback_args: tuple[Any, ...],
    ) -> None:
        self.succeed = lambda rows: callback(rows, *callback_args)
        self.fail = lambda error: errback(error, *errback_args)


class Session:
    """A session that records requests, and answers none."""

    def __init__(self) -> None:
        self.sent: list[Reply] = []

    def execute_async(self, statement: Any, parameters: Any) -> Reply:
        assert statement is STATEMENT
        reply = Reply(parameters)
        self.sent.append(reply)
        return reply

    async def answered(self, position: int) -> Reply:
        """Wait until a request is sent and can be answered, and return its future."""
        await wait_until(lambda: len(self.sent) > position and hasattr(self.sent[position], "fail"))
        return self.sent[position]

    async def answer(self, *positions: int) -> None:
        for position in positions:
            reply = await self.answered(position)
            reply.succeed([(reply.parameters,)])


@pytest.fixture
def session() -> Session:
    return Session()


def started(requests: Requests, *parameters: Any) -> asyncio.Task[list[Any]]:
    return asyncio.create_task(requests.run(STATEMENT, list(parameters)))


async def test_replies_have_the_order_of_the_requests(session: Session) -> None:
    running = started(Requests(session, 8), "a", "b", "c")
    await session.answer(2, 0, 1)
    assert await running == [[("a",)], [("b",)], [("c",)]]


async def test_the_second_reply_to_a_request_that_two_nodes_got_is_ignored(
    session: Session,
) -> None:
    running = started(Requests(session, 8), "a", "b")
    first = await session.answered(0)
    first.succeed([("first",)])
    first.succeed([("second",)])
    first.fail(OperationTimedOut("late"))
    await asyncio.sleep(0.05)
    assert not running.done()
    await session.answer(1)
    assert await running == [[("first",)], [("b",)]]


async def test_a_reply_without_rows_is_an_empty_list(session: Session) -> None:
    running = started(Requests(session, 8), "a")
    (await session.answered(0)).succeed(None)
    assert await running == [[]]


@pytest.mark.parametrize("count", [INLINE_REQUESTS, 5 * INLINE_REQUESTS])
async def test_no_more_requests_wait_for_replies_than_the_limit(
    session: Session, count: int
) -> None:
    running = started(Requests(session, 3), *range(count))
    for position in range(count):
        # The last of the requests that may be sent now.
        await session.answered(min(position + 2, count - 1))
        assert len(session.sent) == min(position + 3, count)
        await session.answer(position)
    assert await running == [[(i,)] for i in range(count)]


async def test_the_requests_of_an_earlier_call_are_sent_first(session: Session) -> None:
    requests = Requests(session, 1)
    first, second = started(requests, "a", "b"), started(requests, "c")
    await session.answer(0, 1, 2)
    assert [reply.parameters for reply in session.sent] == ["a", "b", "c"]
    await asyncio.gather(first, second)


async def test_an_error_takes_the_place_of_its_reply(session: Session) -> None:
    running = started(Requests(session, 8), "a", "b")
    error = OperationTimedOut()
    (await session.answered(0)).fail(error)
    await session.answer(1)
    assert await running == [error, [("b",)]]


async def test_a_call_is_given_up_after_many_errors(session: Session) -> None:
    running = started(Requests(session, 4), *range(100))
    error = OperationTimedOut()
    for position in range(MAX_FAILED + 3):
        (await session.answered(position)).fail(error)
    assert await running == [error] * 100
    assert len(session.sent) == MAX_FAILED + 3


async def test_a_refused_request_ends_its_call(session: Session) -> None:
    running = started(Requests(session, 1), *range(5))
    error = InvalidRequest("no table")
    (await session.answered(0)).fail(error)
    assert await running == [error] * 5
    assert len(session.sent) == 1


async def test_an_error_while_sending_is_recorded(session: Session) -> None:
    def refuse(statement: Any, parameters: Any) -> Reply:
        raise OperationTimedOut

    session.execute_async = refuse  # type: ignore[method-assign]
    (outcome,) = await Requests(session, 1).run(STATEMENT, ["a"])
    assert isinstance(outcome, OperationTimedOut)


async def test_unsent_requests_of_a_cancelled_call_are_dropped(session: Session) -> None:
    requests = Requests(session, 1)
    cancelled = started(requests, "a", "b")
    await session.answered(0)
    cancelled.cancel()
    await asyncio.gather(cancelled, return_exceptions=True)
    running = started(requests, "c")
    await session.answer(0, 1)
    assert await running == [[("c",)]]
