"""Fixtures of all tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support import Shop, open_shop, publish, write_shop


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    """The published shop of `tests.support`, over empty LMDB stores."""
    folder = write_shop(tmp_path / "shop")
    publish(folder)
    opened = open_shop(folder)
    yield opened
    await opened.close()
