"""Fixtures of all tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.redis_servers import RedisServers
from tests.support import Shop, open_shop, publish, write_shop
from tests.zookeeper_server import ZooKeeperServer


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServers]:
    with RedisServers(tmp_path_factory.mktemp("redis")) as started:
        yield started


@pytest.fixture(scope="session")
def zookeeper(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ZooKeeperServer]:
    with ZooKeeperServer(tmp_path_factory.mktemp("zookeeper")) as started:
        yield started


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
