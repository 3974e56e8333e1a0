"""Fixtures of all tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support import Shop, open_shop, publish, write_shop


@pytest.fixture
def shop_folder(tmp_path: Path) -> Path:
    """The published shop of `tests.support`."""
    folder = write_shop(tmp_path / "shop")
    publish(folder)
    return folder


@pytest.fixture
async def shop(shop_folder: Path) -> AsyncIterator[Shop]:
    """Its parts, over empty LMDB stores."""
    opened = open_shop(shop_folder)
    yield opened
    await opened.close()
