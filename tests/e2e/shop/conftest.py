"""A running Kirana with the shop of `tests.support`, started as a user starts it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.starts import kirana_up
from tests.support import write_shop


@pytest.fixture(scope="package")
def shop_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the catalog's folder. Tests must not change the catalog."""
    return write_shop(tmp_path_factory.mktemp("served") / "shop")


@pytest.fixture(scope="package")
def client(shop_folder: Path) -> Iterator[httpx.Client]:
    with kirana_up(shop_folder) as served:
        yield served.client
