"""Fixtures and pytest hooks for all tests: markers, collection order, skipped tests in CI."""

from __future__ import annotations

import gc
import os
import shutil
import signal
from collections.abc import AsyncIterator, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests import needs, parallel
from tests.cassandra_server import CassandraServer
from tests.kafka_server import KafkaServer
from tests.redis_servers import RedisServers
from tests.support import Shop, open_shop, publish, write_shop
from tests.zookeeper_server import ZooKeeperServer

# A test must not fail because the machine is busy.
settings.register_profile("kirana", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("kirana")

# Several tests start Ray at the same time. Workers with the niceness 0, which users have, could
# delay the start of another Ray by more than the 30 s that it allows.
os.environ.setdefault("RAY_worker_niceness", "15")


def pytest_configure() -> None:
    """Restore Python's handler of SIGINT if this process ignores the signal.

    A script starts its background jobs with SIGINT ignored, and child processes inherit that. Some
    tests send SIGINT to processes that they start.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        needs.mark(item)
    if hasattr(config, "workerinput"):
        items.sort(key=parallel.place_of)


def pytest_collection_finish() -> None:
    """Exclude the objects that exist now from garbage collection, which would walk them often."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> parallel.GroupScheduler:
    return parallel.GroupScheduler(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn a skip into a failure in CI, unless the test is marked `machine`."""
    report = yield
    if report.skipped and needs.in_ci() and not item.get_closest_marker("machine"):
        report.outcome = "failed"
        report.longrepr = f"skipped in CI: {report.longrepr}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Generator[None, Any, Any]:
    """Escape text that is not valid Unicode, because workers send their reports as UTF-8."""
    return _encodable((yield))


def _encodable(value: Any) -> Any:
    match value:
        case str():
            return value.encode(errors="backslashreplace").decode()
        case dict():
            return {name: _encodable(item) for name, item in value.items()}
        case list() | tuple():
            return type(value)(map(_encodable, value))
    return value


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServers]:
    with RedisServers(tmp_path_factory.mktemp("redis")) as started:
        yield started


@pytest.fixture(scope="session")
def zookeeper(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ZooKeeperServer]:
    with ZooKeeperServer(tmp_path_factory.mktemp("zookeeper")) as started:
        yield started


@pytest.fixture(scope="session")
def cassandra(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CassandraServer]:
    with CassandraServer(tmp_path_factory.mktemp("cassandra")) as started:
        yield started


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaServer]:
    with KafkaServer(tmp_path_factory.mktemp("kafka")) as started:
        yield started


@pytest.fixture(scope="session")
def published_shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Publish the shop of `tests.support` once per session, and return its folder.

    Tests must not change it. `shop_folder` is a copy for one test.
    """
    folder = write_shop(tmp_path_factory.mktemp("published") / "shop")
    publish(folder)
    return folder


@pytest.fixture
def shop_folder(published_shop: Path, tmp_path: Path) -> Path:
    return shutil.copytree(published_shop, tmp_path / "shop")


@pytest.fixture
async def shop(shop_folder: Path) -> AsyncIterator[Shop]:
    """Yield the parts of a published shop, over empty LMDB stores."""
    opened = open_shop(shop_folder)
    yield opened
    await opened.close()
