"""The connection that all callers share, against a server that says what it is told to."""

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

pytestmark = pytest.mark.usefixtures("inmost_loops")

LONG_S = 30.0
PUSH = b">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n"
ERROR = b"-ERR no\r\n"


class Server:
    """One end of a socket, of which a `Connection` has the other one."""

    def __init__(self, connection: Connection, writer: asyncio.StreamWriter) -> None:
        self.connection = connection
        self._writer = writer

    async def say(self, data: bytes, size: int = 1 << 16) -> None:
        """Send it in pieces."""
        for at in range(0, len(data), size):
            self._writer.write(data[at : at + size])
            await self._writer.drain()
            await asyncio.sleep(0)

    def arrive(self, *pieces: bytes) -> None:
        """Give the connection exactly these pieces, one after the other."""
        for piece in pieces:
            while piece:
                view = self.connection.get_buffer(-1)
                taken = min(len(view), len(piece))
                view[:taken] = piece[:taken]
                piece = piece[taken:]
                self.connection.buffer_updated(taken)

    def close(self) -> None:
        self._writer.close()


@asynccontextmanager
async def served(timeout_s: float = LONG_S) -> AsyncIterator[Server]:
    accepted: asyncio.Queue[asyncio.StreamWriter] = asyncio.Queue()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.put_nowait(writer)
        await reader.read()

    listening = await asyncio.start_server(accept, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*listening.sockets[0].getsockname())
    made = SimpleNamespace(_writer=writer, _reader=reader, socket_timeout=timeout_s)
    connection = Connection(made, lambda: None)
    server = Server(connection, await accepted.get())
    try:
        yield server
    finally:
        connection.abort(ConnectionError("the test is over"))
        await connection.lost.wait()
        server.close()
        listening.close()
        await listening.wait_closed()


async def asked(
    connection: Connection, wanted: int = 1, strings: int | None = ARRAY
) -> asyncio.Task[Sequence[Any]]:
    """Ask, and return once the request waits in line."""
    task = asyncio.create_task(connection.ask(b"PING\r\n", wanted, strings))
    await asyncio.sleep(0)
    return task


def string(value: bytes | None) -> bytes:
    return b"$-1\r\n" if value is None else b"$%d\r\n%b\r\n" % (len(value), value)


def array(*values: bytes | None) -> bytes:
    return b"*%d\r\n%b" % (len(values), b"".join(map(string, values)))


def any_request(chance: random.Random) -> tuple[int, int | None, bytes, list[Any]]:
    """What is wanted, as how many strings, what the server says to it, and what that is."""
    values = [chance.choice([None, b"", b"\r\n$1\r\n", b"x" * 40]) for _ in range(3)]
    match chance.randrange(4):
        case 0:
            return 1, ARRAY, array(*values), values
        case 1:
            return 3, 3, b"".join(map(string, values)), values
        case 2:
            return 2, None, b":7\r\n" + array(*values), [7, values]
        case _:
            # nothing that is simply strings
            return 3, 3, string(values[0]) + b":7\r\n" + string(b"a"), [values[0], 7, b"a"]


@pytest.mark.parametrize("size", [1, 3, 17, 1 << 16])
@pytest.mark.parametrize("with_pushes", [False, True])
async def test_each_request_has_its_own_answers(size: int, with_pushes: bool) -> None:
    chance = random.Random(size)
    requests = [any_request(chance) for _ in range(40)]
    async with served() as server:
        tasks = [await asked(server.connection, *each[:2]) for each in requests]
        said = [each[2] + (PUSH if with_pushes and at % 5 == 0 else b"")
                for at, each in enumerate(requests)]  # fmt: skip
        await server.say(b"".join(said), size)
        found = [list(each) for each in await asyncio.gather(*tasks)]
        assert found == [each[3] for each in requests]
        again = await asked(server.connection)
        await server.say(array(b"z"), size)
        assert await again == [b"z"]


async def test_any_pieces_of_an_array_are_the_array() -> None:
    data = array(b"a", None, b"\r\n", b"*1\r\n")
    async with served() as server:
        for at in range(1, len(data)):
            task = await asked(server.connection)
            server.arrive(data[:at], data[at:])
            assert list(await task) == [b"a", None, b"\r\n", b"*1\r\n"]


async def test_an_error_among_strings_is_its_own_place_s() -> None:
    async with served() as server:
        task = await asked(server.connection, 3, 3)
        after = await asked(server.connection)
        await server.say(string(b"a") + b"-WRONGTYPE Operation\r\n" + string(b"b") + array(b"c"))
        assert values_of(await task) == [b"a", None, b"b"]
        assert list(values_of(await after)) == [b"c"]


async def test_what_waits_behind_another_answer_is_left_as_it_came() -> None:
    async with served() as server:
        write = await asked(server.connection, 1, None)
        reads = [await asked(server.connection) for _ in range(3)]
        server.arrive(b":1\r\n", array(b"a"), array(b"b") + array(b"c"))
        assert await write == [1]
        for read, wanted in zip(reads, (b"a", b"b", b"c"), strict=True):
            found = await read
            assert list(found) == [wanted]
            assert isinstance(found, list) != native.COMPILED


async def test_an_error_in_place_of_an_array_is_raised() -> None:
    async with served() as server:
        task = await asked(server.connection)
        await server.say(b"-LOADING Redis is loading\r\n")
        with pytest.raises(ResponseError, match="LOADING"):
            values_of(await task)


async def test_a_push_that_nobody_waits_for_changes_nothing() -> None:
    async with served() as server:
        for at in range(1, len(PUSH)):
            server.arrive(PUSH[:at], PUSH[at:])
            assert not server.connection.closed
            task = await asked(server.connection)
            server.arrive(array(b"a"))
            assert list(await task) == [b"a"]


async def test_what_is_left_of_a_push_is_nobody_s_answer() -> None:
    async with served() as server:
        for at in range(1, len(PUSH)):
            first = await asked(server.connection, 1, 1)
            # the push begins with what the parser had to read, and ends when the next one waits
            server.arrive(ERROR + PUSH[:at])
            assert isinstance((await first)[0], hiredis.ReplyError)
            second = await asked(server.connection, 1, 1)
            server.arrive(PUSH[at:] + string(b"mine"))
            assert list(await second) == [b"mine"]


async def test_an_answer_that_is_larger_than_the_buffer_is_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("kirana.redis.connection.LARGEST_KEPT", BUFFER_BYTES)
    large = random.Random(1).randbytes(3 * BUFFER_BYTES)
    async with served() as server:
        tasks = [await asked(server.connection) for _ in range(3)]
        await server.say(array(b"a", large, None) + array(large, large) + array(b"b"), 100_003)
        found = [list(each) for each in await asyncio.gather(*tasks)]
        assert found == [[b"a", large, None], [large, large], [b"b"]]
        # what it took is given back
        assert len(server.connection.get_buffer(-1)) == BUFFER_BYTES


async def test_cancelled_callers_leave_others_their_answers() -> None:
    async with served() as server:
        tasks = [await asked(server.connection) for _ in range(4)]
        for at in (0, 2):
            tasks[at].cancel()
        await asyncio.sleep(0)
        await server.say(b"".join(array(b"%d" % at) for at in range(4)), 5)
        assert [list(await tasks[at]) for at in (1, 3)] == [[b"1"], [b"3"]]
        assert tasks[0].cancelled()


async def test_a_server_that_says_nothing_is_given_up() -> None:
    async with served(timeout_s=0.05) as server:
        first = await asked(server.connection)
        await asyncio.sleep(0.03)
        second = await asked(server.connection)
        with pytest.raises(TimeoutError):
            await first
        # may be tried once more
        with pytest.raises(ConnectionError):
            await second
        assert server.connection.closed


async def test_an_answer_that_came_too_late_is_not_the_next_one_s() -> None:
    async with served(timeout_s=0.2) as server:
        late = await asked(server.connection)
        server.arrive(array(b"late", b"x")[:-3])
        with pytest.raises(TimeoutError):
            await late
        assert not server.connection.closed
        task = await asked(server.connection)
        server.arrive(array(b"late", b"x")[-3:] + array(b"mine"))
        assert list(await task) == [b"mine"]


async def test_all_who_wait_are_told_of_an_end() -> None:
    async with served() as server:
        tasks = [await asked(server.connection) for _ in range(3)]
        server.arrive(array(b"a", b"b")[:-4])
        server.close()
        for task in tasks:
            with pytest.raises(ConnectionError):
                await task
        assert server.connection.closed


async def test_who_asks_after_the_end_is_told_at_once() -> None:
    async with served() as server:
        task = await asked(server.connection)
        server.connection.abort(ConnectionError("over"))
        with pytest.raises(ConnectionError, match="over"):
            await task
        with pytest.raises(ConnectionError):
            await asyncio.wait_for(server.connection.ask(b"", 1, ARRAY), LONG_S / 10)


@pytest.mark.parametrize("said", [b"HTTP/1.1 400\r\n", b"\r\n", b"*999999999999\r\n"], ids=str)
async def test_a_server_that_is_no_redis_is_given_up(said: bytes) -> None:
    async with served() as server:
        tasks = [await asked(server.connection), await asked(server.connection, 1, None)]
        await server.say(said)
        for task in tasks:
            with pytest.raises(ConnectionError, match="no answer of Redis"):
                await task


@pytest.mark.parametrize("said", [array(b"a"), b"+OK\r\n", ERROR])
async def test_an_answer_that_nobody_asked_for_ends_the_connection(said: bytes) -> None:
    async with served() as server:
        task = await asked(server.connection)
        await server.say(array(b"a") + said)
        assert list(await task) == [b"a"]
        await asyncio.wait_for(server.connection.lost.wait(), LONG_S)
        assert server.connection.closed


async def test_a_line_that_is_too_long_ends_the_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(redis_connection, "MAX_WAITING", 2)
    async with served() as server:
        tasks = [await asked(server.connection) for _ in range(3)]
        for task in tasks:
            with pytest.raises(ConnectionError, match="does not answer"):
                await task
