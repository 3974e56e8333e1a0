"""The requests that the client sends again after a failure, over a scripted transport."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np
import orjson
import pytest

from kirana.client import Accepted, AsyncClient
from kirana.client.asynchronous import ATTEMPTS
from kirana.client.transport import Broken, NotSent, Request, Response
from kirana.errors import (
    Conflict,
    ConnectionLost,
    DeadlineExceeded,
    InvalidInput,
    KiranaError,
    Unavailable,
    Unknown,
)
from kirana.interactions import Event
from kirana.wire import messages_pb2 as pb

DONE = Response(200, b'{"revision": 3, "object": {}, "status": "ok"}')
COLUMNS = {"ctr": np.zeros(1, dtype=np.float32)}


def refused(status: int, code: str, field: str | None = None) -> Response:
    error = {"code": code, "message": "no", "field": field}
    return Response(status, orjson.dumps({"error": error}))


class Scripted:
    """A transport that gives the answers in turn, and repeats the last one.

    An answer that is an exception is raised. An answer that is a number delays the reply `DONE` by
    this many seconds.
    """

    def __init__(self, *answers: Response | Exception | float) -> None:
        self._answers: Sequence[Response | Exception | float] = answers
        self.sent: list[Request] = []
        self.timeouts_s: list[float] = []

    async def send(self, request: Request, timeout_s: float) -> Response:
        answer = self._answers[min(len(self.sent), len(self._answers) - 1)]
        self.sent.append(request)
        self.timeouts_s.append(timeout_s)
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, float):
            await asyncio.sleep(answer)
            return DONE
        return answer

    async def close(self) -> None:
        pass


def client_of(transport: Scripted, timeout_s: float = 5.0) -> AsyncClient:
    return AsyncClient(transport=transport, timeout_s=timeout_s)


@pytest.mark.parametrize("failure", [NotSent("x"), Broken("x"), refused(503, "unavailable")])
async def test_a_failed_read_is_sent_again(failure: Response | Exception) -> None:
    transport = Scripted(failure, failure, DONE)
    assert (await client_of(transport).health())["status"] == "ok"
    assert len(transport.sent) == 3


async def test_a_write_that_no_replica_accepted_is_sent_again() -> None:
    transport = Scripted(NotSent("x"), refused(503, "overloaded"), DONE)
    assert await client_of(transport).put_object("entity", "x", {}) == 3
    assert len(transport.sent) == 3


@pytest.mark.parametrize(
    ("failure", "error"),
    [(Broken("x"), ConnectionLost), (refused(503, "unavailable"), Unavailable)],
)
async def test_a_write_that_may_have_been_done_is_not_sent_again(
    failure: Response | Exception, error: type[KiranaError]
) -> None:
    transport = Scripted(failure, DONE)
    with pytest.raises(error):
        await client_of(transport).put_object("entity", "x", {})
    assert len(transport.sent) == 1


HAPROXY = Response(500, b"Internal Server Error")
"""The reply of Serve's HAProxy when its replica has died, or when there is no replica.

HAProxy sends it in place of its own 502, 503 and 504.
"""


async def test_a_read_is_sent_again_when_the_front_door_lost_its_replica() -> None:
    transport = Scripted(HAPROXY, HAPROXY, DONE)
    assert (await client_of(transport).health())["status"] == "ok"
    assert len(transport.sent) == 3


async def test_a_write_is_not_sent_again_when_the_front_door_lost_its_replica() -> None:
    transport = Scripted(HAPROXY, DONE)
    with pytest.raises(Unavailable):
        await client_of(transport).put_object("entity", "x", {})
    assert len(transport.sent) == 1


@pytest.mark.parametrize(("status", "code"), [(500, "internal"), (502, "model_failed")])
async def test_a_request_that_would_fail_again_is_not_sent_again(status: int, code: str) -> None:
    transport = Scripted(refused(status, code), DONE)
    with pytest.raises(KiranaError):
        await client_of(transport).health()
    assert len(transport.sent) == 1


async def test_a_write_of_features_is_sent_again_only_with_an_event_time() -> None:
    reply = Response(200, pb.FeaturesPutReply(written=1).SerializeToString())
    transport = Scripted(Broken("x"), reply)
    client = client_of(transport)
    assert (await client.put_features("a.b", {"id": 1}, COLUMNS, event_time=7)).written == 1
    without_time = Scripted(Broken("x"), reply)
    with pytest.raises(ConnectionLost):
        await client_of(without_time).put_features("a.b", {"id": 1}, COLUMNS)


async def test_events_are_sent_again() -> None:
    reply = Response(200, pb.InteractionsPostReply(accepted=1).SerializeToString())
    transport = Scripted(Broken("x"), reply)
    assert await client_of(transport).add_interactions([Event("7", "click", "1", 5)]) == Accepted(1)


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "", "ftp://a"])
def test_a_url_that_is_not_http_is_refused(url: str) -> None:
    with pytest.raises(InvalidInput, match="must be an HTTP URL such as http://"):
        AsyncClient(url)


async def test_the_number_of_attempts_is_limited() -> None:
    transport = Scripted(NotSent("connection refused"))
    with pytest.raises(Unavailable, match="connection refused"):
        await client_of(transport).health()
    assert len(transport.sent) == ATTEMPTS


async def test_one_deadline_covers_all_attempts() -> None:
    transport = Scripted(NotSent("x"), 60.0)
    with pytest.raises(DeadlineExceeded):
        await client_of(transport, timeout_s=0.2).health()
    first, second = transport.timeouts_s
    assert 0 < second < first <= 0.2


@pytest.mark.parametrize(
    ("answer", "error", "code"),
    [
        (refused(400, "invalid_input", "keys"), InvalidInput, "invalid_input"),
        (refused(400, "invalid_json"), InvalidInput, "invalid_json"),
        (refused(404, "unknown_flow", "name"), Unknown, "unknown_flow"),
        (refused(409, "conflict"), Conflict, "conflict"),
        (Response(504, b"<html>late</html>"), DeadlineExceeded, "http_504"),
        (Response(500, b"\xff"), KiranaError, "http_500"),
        (Response(400, b"{}"), InvalidInput, "http_400"),
    ],
)
async def test_an_error_reply_raises_the_matching_error(
    answer: Response, error: type[KiranaError], code: str
) -> None:
    transport = Scripted(answer)
    with pytest.raises(error) as caught:
        await client_of(transport).health()
    assert type(caught.value) is error
    assert caught.value.code == code
    assert caught.value.message
    assert len(transport.sent) == 1


async def test_all_attempts_of_a_call_share_one_id_and_its_error_carries_it() -> None:
    transport = Scripted(refused(503, "unavailable"), refused(400, "invalid_input"))
    client = AsyncClient(transport=transport, caller="storefront")
    for _ in range(2):
        with pytest.raises(InvalidInput) as caught:
            await client.health()
        assert transport.sent[-1].headers == {
            "x-kirana-caller": "storefront",
            "x-request-id": caught.value.request_id,
        }
    first_attempt, second_attempt, next_call = (
        request.headers["x-request-id"] for request in transport.sent
    )
    assert first_attempt == second_attempt != next_call
