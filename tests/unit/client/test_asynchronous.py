"""What is sent again, and what is not, by a transport that does as it is told."""

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
    """Answers in turn with what it is given; the last stands for all that follow."""

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


@pytest.mark.parametrize("trouble", [NotSent("x"), Broken("x"), refused(503, "unavailable")])
async def test_a_read_is_sent_again(trouble: Response | Exception) -> None:
    transport = Scripted(trouble, trouble, DONE)
    assert (await client_of(transport).health())["status"] == "ok"
    assert len(transport.sent) == 3


async def test_what_nobody_has_seen_is_sent_again_whatever_it_is() -> None:
    transport = Scripted(NotSent("x"), refused(503, "overloaded"), DONE)
    assert await client_of(transport).put_object("entity", "x", {}) == 3
    assert len(transport.sent) == 3


@pytest.mark.parametrize(
    ("trouble", "error"),
    [(Broken("x"), ConnectionLost), (refused(503, "unavailable"), Unavailable)],
)
async def test_what_may_have_been_done_is_not_repeated(
    trouble: Response | Exception, error: type[KiranaError]
) -> None:
    transport = Scripted(trouble, DONE)
    with pytest.raises(error):
        await client_of(transport).put_object("entity", "x", {})
    assert len(transport.sent) == 1


HAPROXY = Response(500, b"Internal Server Error")
"""What Serve's HAProxy says for its own 502, 503 and 504: a replica went, or there is none."""


async def test_a_read_is_sent_again_when_the_front_door_lost_its_replica() -> None:
    transport = Scripted(HAPROXY, HAPROXY, DONE)
    assert (await client_of(transport).health())["status"] == "ok"
    assert len(transport.sent) == 3


async def test_what_the_front_door_lost_may_have_been_done() -> None:
    transport = Scripted(HAPROXY, DONE)
    with pytest.raises(Unavailable):
        await client_of(transport).put_object("entity", "x", {})
    assert len(transport.sent) == 1


@pytest.mark.parametrize(("status", "code"), [(500, "internal"), (502, "model_failed")])
async def test_what_would_fail_again_is_not_sent_again(status: int, code: str) -> None:
    transport = Scripted(refused(status, code), DONE)
    with pytest.raises(KiranaError):
        await client_of(transport).health()
    assert len(transport.sent) == 1


async def test_a_write_with_its_event_time_can_be_repeated() -> None:
    reply = Response(200, pb.FeaturesPutReply(written=1).SerializeToString())
    transport = Scripted(Broken("x"), reply)
    client = client_of(transport)
    assert (await client.put_features("a.b", {"id": 1}, COLUMNS, event_time=7)).written == 1
    again = Scripted(Broken("x"), reply)
    with pytest.raises(ConnectionLost):
        await client_of(again).put_features("a.b", {"id": 1}, COLUMNS)


async def test_the_same_event_again_is_the_same_event() -> None:
    reply = Response(200, pb.InteractionsPostReply(accepted=1).SerializeToString())
    transport = Scripted(Broken("x"), reply)
    assert await client_of(transport).add_interactions([Event("7", "click", "1", 5)]) == Accepted(1)


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "", "ftp://a"])
def test_a_url_is_one_of_http(url: str) -> None:
    with pytest.raises(InvalidInput, match="is not like http://"):
        AsyncClient(url)


async def test_attempts_come_to_an_end() -> None:
    transport = Scripted(NotSent("nobody listens"))
    with pytest.raises(Unavailable, match="nobody listens"):
        await client_of(transport).health()
    assert len(transport.sent) == ATTEMPTS


async def test_a_deadline_is_for_all_attempts_together() -> None:
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
async def test_errors_are_those_of_the_tree(
    answer: Response, error: type[KiranaError], code: str
) -> None:
    transport = Scripted(answer)
    with pytest.raises(error) as caught:
        await client_of(transport).health()
    assert type(caught.value) is error
    assert caught.value.code == code
    assert caught.value.message
    assert len(transport.sent) == 1


async def test_all_attempts_of_a_call_have_one_id_and_its_error_names_it() -> None:
    transport = Scripted(refused(503, "unavailable"), refused(400, "invalid_input"))
    client = AsyncClient(transport=transport, caller="storefront")
    for _ in range(2):
        with pytest.raises(InvalidInput) as caught:
            await client.health()
        assert transport.sent[-1].headers == {
            "x-kirana-caller": "storefront",
            "x-request-id": caught.value.request_id,
        }
    first, again, other = (each.headers["x-request-id"] for each in transport.sent)
    assert first == again != other
