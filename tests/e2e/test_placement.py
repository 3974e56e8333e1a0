"""Fused into one replica, or each part a deployment of its own: the same answers."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from demo.server import server
from kirana.serve_environment import free_ports
from tests.e2e.shop_requests import BAD, READS, WRITES
from tests.support import write_shop


def _answers(client: httpx.Client) -> list[tuple[int, object]]:
    calls = [*WRITES, *READS, *(each[0] for each in BAD)]
    return [(reply.status_code, reply.json()) for reply in (call.send(client) for call in calls)]


@pytest.fixture(scope="module")
def fused_answers(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[int, object]]:
    return _serve_and_ask(tmp_path_factory.mktemp("fused"), "fused")


def _serve_and_ask(folder: Path, placement: str) -> list[tuple[int, object]]:
    shop = write_shop(folder / "shop")
    port = free_ports(1)[0]
    with server(shop, port, folder / "up.log", "--placement", placement) as served:
        return _answers(served.client)


def test_spread_answers_as_fused_does(
    tmp_path: Path, fused_answers: list[tuple[int, object]]
) -> None:
    spread = _serve_and_ask(tmp_path, "spread")
    assert spread == fused_answers
