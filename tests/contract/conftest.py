"""Fixtures of the contract tests: feature stores, Redis servers, the source of a catalog."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from kirana.stores import FeatureStore
from tests.cassandra_server import CassandraServer
from tests.contract.backends import backends
from tests.contract.catalog_source import CLICKS, write
from tests.redis_servers import RedisServers
from tests.store_calls import open_store

PATIENT = "socket_timeout=30&socket_connect_timeout=30"
"""Long timeouts. These tests do not check timeouts, and a busy machine may pause."""


@pytest.fixture(params=backends())
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return _url(request, request.param, tmp_path)


def _url(request: pytest.FixtureRequest, backend: str, folder: Path) -> str:
    """Return the URL of an empty store. Tiers are `URL behind URL`, for `open_store`."""
    tiers, _, durable = backend.partition(" ")
    if tiers == "tiers":
        return f"{_url(request, durable, folder)} behind {_url(request, 'redis 7', folder)}"
    match backend:
        case "lmdb":
            return f"lmdb://{folder}/features"
        case "memory":
            return "memory://"
        case "cassandra":
            cassandra: CassandraServer = request.getfixturevalue("cassandra")
            return f"{cassandra.empty()}?timeout=30"
    servers: RedisServers = request.getfixturevalue("servers")
    server_url = servers.empty(backend)
    return f"{server_url}{'&' if '?' in server_url else '?'}{PATIENT}"


@pytest.fixture
async def store(url: str) -> AsyncIterator[FeatureStore]:
    opened = open_store(url)
    yield opened
    await opened.close()


@pytest.fixture
def own(tmp_path: Path) -> Iterator[RedisServers]:
    """Yield servers that only one test uses, so that it may kill or freeze them."""
    with RedisServers(tmp_path) as started:
        yield started


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Return a folder with the source of a catalog that has one group with one feature."""
    folder = tmp_path / "shop"
    folder.mkdir()
    write(folder, CLICKS)
    return folder
