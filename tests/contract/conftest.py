"""Every feature store by its URL, and the catalog's source."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from kirana.stores import FeatureStore, open_feature_store
from tests.contract.backends import backends
from tests.contract.catalog_source import CLICKS, write
from tests.redis_servers import RedisServers

PATIENT = "socket_timeout=30&socket_connect_timeout=30"
"""The suite checks what stores do, not how soon they give a server up: a busy machine may pause."""


@pytest.fixture(params=backends())
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    own = {"lmdb": f"lmdb://{tmp_path}/features", "memory": "memory://"}
    if request.param in own:
        return own[request.param]
    servers: RedisServers = request.getfixturevalue("servers")
    found = servers.empty(request.param)
    return f"{found}{'&' if '?' in found else '?'}{PATIENT}"


@pytest.fixture
async def store(url: str) -> AsyncIterator[FeatureStore]:
    opened = open_feature_store(url)
    yield opened
    await opened.close()


@pytest.fixture
def own(tmp_path: Path) -> Iterator[RedisServers]:
    """Servers of one test, which may do to them what it likes."""
    with RedisServers(tmp_path) as started:
        yield started


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder with a group of one feature."""
    folder = tmp_path / "shop"
    folder.mkdir()
    write(folder, CLICKS)
    return folder
