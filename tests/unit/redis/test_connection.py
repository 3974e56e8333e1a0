"""`Connection`, connected to a server whose replies the test chooses."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import hiredis
import pytest
from redis.exceptions import ResponseError

from kirana import native
from kirana.redis import connection as redis_connection
from kirana.redis.connection import ARRAY, BUFFER_BYTES, Connection, values_of
from kirana.redis.errors import ReplyTooSlow

pytestmark = pytest.mark.usefixtures("inner_loops")

LONG_S = 30.0
PUSH = b">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n"
ERROR = b"-ERR no\r\n"


class Server:
    """The server's end of the socket of a `Connection`."""

    def __init__(self, connection: Connection, writer: asyncio.StreamWriter) -> None:
        self.connection = connection
        self._writer = writer

    async def send(self, data: bytes, size: int = 1 << 16) -> None:
        """Send `data` in pieces of `size` bytes."""
        for start in range(0, len(data), size):
            self._writer.write(data[start : start + size])
            await self._writer.drain()
            await asyncio.sleep(0)

    def arrive(self, *pieces: bytes) -> None:
        """Pass exactly these pieces to the connection, one after the other, without the socket."""
        for piece in pieces:
            while piece:
                view = self.connection.get_buffer(-1)
                count = min(len(view), len(piece))
                view[:count] = piece[:count]
                piece = piece[count:]
                self.connection.buffer_updated(count)

    def close(self) -> None:
        self._writer.close()


@asynccontextmanager
async def connected_server(timeout_s: float = LONG_S) -> AsyncIterator[Server]:
    """Yield a new server with a `Connection` to it."""
    accepted: asyncio.Queue[asyncio.StreamWriter] = asyncio.Queue()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.put_nowait(writer)
        await reader.read()

    listener = await asyncio.start_server(accept, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*listener.sockets[0].getsockname())
    redis_py_connection = SimpleNamespace(_writer=writer, _reader=reader, socket_timeout=timeout_s)
    connection = Connection(redis_py_connection, lambda: None)
    server = Server(connection, await accepted.get())
    try:
        yield server
    finally:
        connection.abort(ConnectionError("the test is over"))
        await connection.socket_closed.wait()
        server.close()
        listener.close()
        await listener.wait_closed()


async def send_request(
    connection: Connection, reply_count: int = 1, strings: int | None = ARRAY
) -> asyncio.Task[Sequence[Any]]:
    """Send a request, and return the task that waits for its replies."""
    task = asyncio.create_task(connection.request(b"PING\r\n", reply_count, strings))
    await asyncio.sleep(0)
    return task


def string(value: bytes | None) -> bytes:
    return b"$-1\r\n" if value is None else b"$%d\r\n%b\r\n" % (len(value), value)


def array(*values: bytes | None) -> bytes:
    return b"*%d\r\n%b" % (len(values), b"".join(map(string, values)))


def any_request(rng: random.Random) -> tuple[int, int | None, bytes, list[Any]]:
    """Return the arguments `reply_count` and `strings`, the reply, and the parsed reply."""
    values = [rng.choice([None, b"", b"\r\n$1\r\n", b"x" * 40]) for _ in range(3)]
    match rng.randrange(4):
        case 0:
            return 1, ARRAY, array(*values), values
        case 1:
            return 3, 3, b"".join(map(string, values)), values
        case 2:
            return 2, None, b":7\r\n" + array(*values), [7, values]
        case _:
            # One of the replies is not a string.
            return 3, 3, string(values[0]) + b":7\r\n" + string(b"a"), [values[0], 7, b"a"]


@pytest.mark.parametrize("size", [1, 3, 17, 1 << 16])
@pytest.mark.parametrize("with_pushes", [False, True])
async def test_each_request_gets_its_own_replies(size: int, with_pushes: bool) -> None:
    rng = random.Random(size)
    requests = [any_request(rng) for _ in range(40)]
    async with connected_server() as server:
        tasks = [await send_request(server.connection, *request[:2]) for request in requests]
        replies = [request[2] + (PUSH if with_pushes and i % 5 == 0 else b"")
                   for i, request in enumerate(requests)]  # fmt: skip
        await server.send(b"".join(replies), size)
        results = [list(result) for result in await asyncio.gather(*tasks)]
        assert results == [request[3] for request in requests]
        again = await send_request(server.connection)
        await server.send(array(b"z"), size)
        assert await again == [b"z"]


async def test_an_array_may_arrive_in_any_pieces() -> None:
    data = array(b"a", None, b"\r\n", b"*1\r\n")
    async with connected_server() as server:
        for cut in range(1, len(data)):
            task = await send_request(server.connection)
            server.arrive(data[:cut], data[cut:])
            assert list(await task) == [b"a", None, b"\r\n", b"*1\r\n"]


async def test_an_error_among_strings_replaces_only_one_value() -> None:
    async with connected_server() as server:
        task = await send_request(server.connection, 3, 3)
        after = await send_request(server.connection)
        await server.send(string(b"a") + b"-WRONGTYPE Operation\r\n" + string(b"b") + array(b"c"))
        assert values_of(await task) == [b"a", None, b"b"]
        assert list(values_of(await after)) == [b"c"]


async def test_arrays_after_a_reply_of_another_kind_are_read_without_parsing_if_compiled() -> None:
    async with connected_server() as server:
        write = await send_request(server.connection, 1, None)
        reads = [await send_request(server.connection) for _ in range(3)]
        server.arrive(b":1\r\n", array(b"a"), array(b"b") + array(b"c"))
        assert await write == [1]
        for read, expected in zip(reads, (b"a", b"b", b"c"), strict=True):
            values = await read
            assert list(values) == [expected]
            assert isinstance(values, list) != native.COMPILED


async def test_an_error_instead_of_an_array_is_raised() -> None:
    async with connected_server() as server:
        task = await send_request(server.connection)
        await server.send(b"-LOADING Redis is loading\r\n")
        with pytest.raises(ResponseError, match="LOADING"):
            values_of(await task)


async def test_a_push_message_is_ignored() -> None:
    async with connected_server() as server:
        for cut in range(1, len(PUSH)):
            server.arrive(PUSH[:cut], PUSH[cut:])
            assert not server.connection.closed
            task = await send_request(server.connection)
            server.arrive(array(b"a"))
            assert list(await task) == [b"a"]


async def test_the_rest_of_a_push_is_not_a_reply() -> None:
    async with connected_server() as server:
        for cut in range(1, len(PUSH)):
            first = await send_request(server.connection, 1, 1)
            # The error makes the connection use its parser, which also reads the start of the
            # push. The rest of the push arrives while the next request waits.
            server.arrive(ERROR + PUSH[:cut])
            assert isinstance((await first)[0], hiredis.ReplyError)
            second = await send_request(server.connection, 1, 1)
            server.arrive(PUSH[cut:] + string(b"mine"))
            assert list(await second) == [b"mine"]


async def test_a_reply_larger_than_the_buffer_is_read_completely(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("kirana.redis.connection.MAX_KEPT_BYTES", BUFFER_BYTES)
    large = random.Random(1).randbytes(3 * BUFFER_BYTES)
    async with connected_server() as server:
        tasks = [await send_request(server.connection) for _ in range(3)]
        await server.send(array(b"a", large, None) + array(large, large) + array(b"b"), 100_003)
        results = [list(result) for result in await asyncio.gather(*tasks)]
        assert results == [[b"a", large, None], [large, large], [b"b"]]
        # The large buffer was released.
        assert len(server.connection.get_buffer(-1)) == BUFFER_BYTES


async def test_cancelled_requests_do_not_shift_the_replies_of_others() -> None:
    async with connected_server() as server:
        tasks = [await send_request(server.connection) for _ in range(4)]
        for i in (0, 2):
            tasks[i].cancel()
        await asyncio.sleep(0)
        await server.send(b"".join(array(b"%d" % i) for i in range(4)), 5)
        assert [list(await tasks[i]) for i in (1, 3)] == [[b"1"], [b"3"]]
        assert tasks[0].cancelled()


async def test_the_connection_to_a_server_that_does_not_reply_is_closed() -> None:
    async with connected_server(timeout_s=0.05) as server:
        first = await send_request(server.connection)
        await asyncio.sleep(0.03)
        second = await send_request(server.connection)
        with pytest.raises(TimeoutError):
            await first
        # `SharedConnection` sends a request again after a `ConnectionError`.
        with pytest.raises(ConnectionError):
            await second
        assert server.connection.closed


async def test_a_late_reply_is_not_given_to_the_next_request() -> None:
    async with connected_server(timeout_s=0.2) as server:
        late = await send_request(server.connection)
        server.arrive(array(b"late", b"x")[:-3])
        with pytest.raises(TimeoutError):
            await late
        assert not server.connection.closed
        task = await send_request(server.connection)
        server.arrive(array(b"late", b"x")[-3:] + array(b"mine"))
        assert list(await task) == [b"mine"]


async def test_requests_that_wait_behind_a_large_reply_fail_as_such(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(redis_connection, "LARGE_REPLY_BYTES", 1_000)
    async with connected_server(timeout_s=0.1) as server:
        large = await send_request(server.connection)
        behind = await send_request(server.connection)
        server.arrive(array(b"x" * 2_000)[:-2])
        for task in (large, behind):
            with pytest.raises(ReplyTooSlow):
                await task
        assert not server.connection.closed
        server.arrive(array(b"x" * 2_000)[-2:] + array(b"late")[:-2])
        later = await send_request(server.connection)
        with pytest.raises(TimeoutError) as caught:
            await later
        assert not isinstance(caught.value, ReplyTooSlow)


async def test_all_waiting_requests_fail_if_the_server_closes() -> None:
    async with connected_server() as server:
        tasks = [await send_request(server.connection) for _ in range(3)]
        server.arrive(array(b"a", b"b")[:-4])
        server.close()
        for task in tasks:
            with pytest.raises(ConnectionError):
                await task
        assert server.connection.closed


async def test_a_request_on_a_closed_connection_fails_at_once() -> None:
    async with connected_server() as server:
        task = await send_request(server.connection)
        server.connection.abort(ConnectionError("over"))
        with pytest.raises(ConnectionError, match="over"):
            await task
        with pytest.raises(ConnectionError):
            await asyncio.wait_for(server.connection.request(b"", 1, ARRAY), LONG_S / 10)


@pytest.mark.parametrize("reply", [b"HTTP/1.1 400\r\n", b"\r\n", b"*999999999999\r\n"], ids=str)
async def test_the_connection_to_a_server_that_is_not_redis_is_closed(reply: bytes) -> None:
    async with connected_server() as server:
        tasks = [
            await send_request(server.connection),
            await send_request(server.connection, 1, None),
        ]
        await server.send(reply)
        for task in tasks:
            with pytest.raises(ConnectionError, match="not a reply of Redis"):
                await task


@pytest.mark.parametrize("reply", [array(b"a"), b"+OK\r\n", ERROR])
async def test_a_reply_without_a_request_ends_the_connection(reply: bytes) -> None:
    async with connected_server() as server:
        task = await send_request(server.connection)
        await server.send(array(b"a") + reply)
        assert list(await task) == [b"a"]
        await asyncio.wait_for(server.connection.socket_closed.wait(), LONG_S)
        assert server.connection.closed


async def test_too_many_waiting_requests_end_the_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(redis_connection, "MAX_WAITING", 2)
    async with connected_server() as server:
        tasks = [await send_request(server.connection) for _ in range(3)]
        for task in tasks:
            with pytest.raises(ConnectionError, match="does not answer"):
                await task
