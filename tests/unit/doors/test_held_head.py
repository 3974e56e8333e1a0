"""`HeldHead`: a head and its body leave in one write, and nothing is lost without a body."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from kirana.doors.held_head import HeldHead

HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n"


class Written(asyncio.Transport):
    """A transport that records what is written and how it is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.ended = ""

    def write(self, data: Any) -> None:
        self.writes.append(bytes(data))

    def writelines(self, list_of_data: Any) -> None:
        self.writes.append(b"".join(list_of_data))

    def is_closing(self) -> bool:
        return bool(self.ended)

    def close(self) -> None:
        self.ended = "closed"

    def abort(self) -> None:
        self.ended = "aborted"


@pytest.fixture
def written() -> Written:
    return Written()


@pytest.fixture
def held(written: Written) -> HeldHead:
    return HeldHead(written)


def test_a_head_and_its_body_are_one_write(held: HeldHead, written: Written) -> None:
    for _ in range(2):
        held.write(HEAD)
        held.write(b"{}")
    assert written.writes == [HEAD + b"{}"] * 2


def test_a_body_that_looks_like_a_head_is_sent(held: HeldHead, written: Written) -> None:
    held.write(HEAD)
    held.write(HEAD)
    assert written.writes == [HEAD + HEAD]


def test_an_interim_reply_is_sent_at_once(held: HeldHead, written: Written) -> None:
    held.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert written.writes == [b"HTTP/1.1 100 Continue\r\n\r\n"]


def test_a_head_without_a_body_is_sent_by_flush_and_by_close(
    held: HeldHead, written: Written
) -> None:
    held.write(HEAD)
    held.flush()
    held.flush()
    held.write(HEAD)
    held.close()
    assert written.writes == [HEAD, HEAD]
    assert held.is_closing()


def test_abort_sends_nothing(held: HeldHead, written: Written) -> None:
    held.write(HEAD)
    held.abort()
    assert (written.writes, written.ended) == ([], "aborted")
