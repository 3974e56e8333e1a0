"""`Acceptor`: batches of connections, the end of free files, and closing."""

from __future__ import annotations

import asyncio
import resource
import socket
from collections.abc import Iterator

import pytest

from kirana.doors import acceptor as acceptor_module
from kirana.doors.acceptor import Acceptor
from tests.waiting import wait_until


class Connected(asyncio.Protocol):
    """A protocol that counts its connections."""

    transports: list[asyncio.BaseTransport]

    def __init__(self, transports: list[asyncio.BaseTransport]) -> None:
        self._transports = transports

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transports.append(transport)


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound


@pytest.fixture
def transports() -> Iterator[list[asyncio.BaseTransport]]:
    made: list[asyncio.BaseTransport] = []
    yield made
    for transport in made:
        transport.close()


def connect(listening: socket.socket, count: int) -> list[socket.socket]:
    return [socket.create_connection(listening.getsockname()) for _ in range(count)]


async def test_all_waiting_connections_are_accepted_in_one_iteration(
    listening: socket.socket, transports: list[asyncio.BaseTransport]
) -> None:
    acceptor = Acceptor(listening, lambda: Connected(transports))
    clients = connect(listening, 100)
    rounds = 0
    while len(transports) < 100:
        await asyncio.sleep(0)
        rounds += 1
    assert rounds < 20
    acceptor.close()
    await acceptor.wait_closed()
    for client in clients:
        client.close()


async def test_a_closed_acceptor_accepts_no_more_and_keeps_what_it_has(
    listening: socket.socket, transports: list[asyncio.BaseTransport]
) -> None:
    acceptor = Acceptor(listening, lambda: Connected(transports))
    (first,) = connect(listening, 1)
    await wait_until(lambda: len(transports) == 1, "the first is accepted")
    acceptor.close()
    (second,) = connect(listening, 1)
    await asyncio.sleep(0.02)
    assert len(transports) == 1
    assert not transports[0].is_closing()
    first.close()
    second.close()


async def test_accepting_goes_on_once_files_are_free_again(
    listening: socket.socket,
    transports: list[asyncio.BaseTransport],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(acceptor_module, "PAUSE_S", 0.01)
    acceptor = Acceptor(listening, lambda: Connected(transports))
    (client,) = connect(listening, 1)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        await wait_until(lambda: bool(caplog.records), "the system refuses")
        assert transports == []
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    await wait_until(lambda: len(transports) == 1, "the connection is accepted")
    acceptor.close()
    client.close()
