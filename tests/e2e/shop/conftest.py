"""A running Kirana over the shop of `tests.support`, started as a user starts it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from demo.server import server
from kirana.serve_environment import free_ports
from tests.support import write_shop


@pytest.fixture(scope="package")
def shop_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The catalog's folder; tests leave the catalog as it is."""
    return write_shop(tmp_path_factory.mktemp("served") / "shop")


@pytest.fixture(scope="package")
def client(shop_folder: Path) -> Iterator[httpx.Client]:
    with server(shop_folder, free_ports(1)[0], shop_folder / "up.log") as served:
        yield served.client
