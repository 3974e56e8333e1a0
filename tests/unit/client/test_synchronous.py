"""The synchronous client: threads share it, and closing it ends the calls in progress."""

from __future__ import annotations

import concurrent.futures
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from kirana.client import Client
from kirana.errors import DeadlineExceeded, Unknown

BODY = b'{"status": "ok"}'
PATIENCE_S = 10.0


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        status, body = (200, BODY) if self.path == "/healthz" else (404, b"")
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@contextmanager
def _silent() -> Iterator[tuple[str, socket.socket]]:
    """Yield the URL and the listening socket of a server that never replies."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}", listening


def test_threads_share_a_client(url: str) -> None:
    with (
        Client(url, direct=False) as client,
        concurrent.futures.ThreadPoolExecutor(8) as pool,
    ):
        replies = list(pool.map(lambda _: client.health(), range(64)))
    assert replies == [{"status": "ok"}] * 64


def test_an_error_reply_is_raised(url: str) -> None:
    with Client(url, direct=False) as client, pytest.raises(Unknown):
        client.catalog()


def test_a_client_can_be_closed_twice(url: str) -> None:
    client = Client(url)
    assert client.health() == {"status": "ok"}
    client.close()
    client.close()


def test_a_client_that_was_never_used_can_be_closed() -> None:
    Client("http://127.0.0.1:9").close()


def test_a_call_to_a_silent_server_ends_at_its_timeout() -> None:
    with _silent() as (url, _), Client(url) as client, pytest.raises(DeadlineExceeded):
        client.health(timeout_s=0.1)


def test_closing_ends_the_calls_of_other_threads() -> None:
    ended: list[BaseException | None] = []

    def call(client: Client) -> None:
        try:
            client.health(timeout_s=60)
        except BaseException as error:
            ended.append(error)

    with _silent() as (url, listening):
        client = Client(url, direct=False)
        thread = threading.Thread(target=call, args=(client,), daemon=True)
        thread.start()
        connection, _ = listening.accept()
        with connection:
            connection.recv(1)
            client.close()
            thread.join(PATIENCE_S)
    assert not thread.is_alive(), "the call still waits for a reply after its client was closed"
    assert ended
