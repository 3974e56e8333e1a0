"""A running Kirana over the shop of `tests.support`, started as a user starts it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from demo.server import server
from kirana.serve_environment import free_ports
from tests.support import write_shop


@pytest.fixture(scope="module")
def shop_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shop(tmp_path_factory.mktemp("served") / "shop")


@pytest.fixture(scope="module")
def port() -> int:
    return free_ports(1)[0]


@pytest.fixture(scope="module")
def options() -> tuple[str, ...]:
    """Options of `kirana up`; a module that wants others has a fixture of this name."""
    return ()


@pytest.fixture(scope="module")
def client(shop_folder: Path, port: int, options: tuple[str, ...]) -> Iterator[httpx.Client]:
    log = shop_folder / "up.log"
    with server(shop_folder, port, log, *options) as served:
        yield served.client
