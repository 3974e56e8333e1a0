"""The catalog in ZooKeeper: servers that stall, restart or lose their data; wrong nodes."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from kazoo.client import KazooClient

from kirana.catalog import zookeeper as zookeeper_catalog
from kirana.catalog import zookeeper_nodes
from kirana.catalog.changes import Change
from kirana.catalog.publishing import Checked
from kirana.catalog.revisions import LiveRevision, Revisions
from kirana.catalog.snapshot import Catalog
from kirana.catalog.zookeeper import ZookeeperCatalog
from kirana.cli.catalog import publish
from kirana.cli.locations import local_settings
from kirana.errors import CatalogError, ConfigurationError, Conflict, Unavailable, Unknown
from kirana.revision import Revision
from kirana.serving.checks import catalog_checks
from kirana.serving.environment import free_ports
from tests.contract.catalog_source import CLICKS, CTR, ENTITY, wait_for_revision, write
from tests.support import nth
from tests.waiting import wait_for, wait_until
from tests.zookeeper_server import ZooKeeperServer

SESSION_S = 1.0


class Part:
    """A part that loads each revision, as the parts of a replica do."""

    def __init__(self, backend: ZookeeperCatalog) -> None:
        self._backend = backend

    async def prepare(self, revision: Revision) -> None:
        await asyncio.to_thread(self._backend.load, revision)


def _make_transactions(zookeeper: ZooKeeperServer) -> None:
    """Make many transactions, so that an emptied server seems to lag behind its clients.

    Its number of transactions is then lower than the last one that the clients have seen.
    """
    client = KazooClient(zookeeper.address)
    client.start()
    for _ in range(200):
        client.create("/noise-", sequence=True)
    client.stop()
    client.close()


def _count_features(catalog: Catalog) -> int:
    return len(catalog.groups["product.stats"].versions[0].features)


@pytest.fixture
def url(zookeeper: ZooKeeperServer) -> str:
    return f"zk://{zookeeper.address}/{uuid4().hex}?session_timeout={SESSION_S}"


@pytest.fixture
def backend(url: str, source: Path) -> Iterator[ZookeeperCatalog]:
    opened = ZookeeperCatalog(url, source, catalog_checks())
    yield opened
    opened.close()


@pytest.fixture
def reader(url: str) -> Iterator[ZookeeperCatalog]:
    opened = ZookeeperCatalog(url, None, catalog_checks())
    yield opened
    opened.close()


async def until(reached: Callable[[], bool], description: str) -> None:
    """Wait until `reached`, called in a thread, returns true. Ignore `Unavailable`."""
    await wait_until(lambda: asyncio.to_thread(reached), description, ignoring=Unavailable)


async def test_readers_keep_the_last_revision_while_zookeeper_stalls_and_follow_later(
    zookeeper: ZooKeeperServer, backend: ZookeeperCatalog, reader: ZookeeperCatalog, source: Path
) -> None:
    backend.publish()
    live = LiveRevision(reader, [Part(reader)], poll_s=0.05)
    await live.start()
    following = asyncio.create_task(live.follow())
    zookeeper.pause()
    try:
        # This is longer than the timeout of the sessions.
        await asyncio.sleep(3 * SESSION_S)
        assert (live.revision.number, reader.current().number) == (1, 1)
        with pytest.raises(Unavailable):
            await asyncio.to_thread(backend.publish_change, Change({"body": ENTITY}), None)
    finally:
        zookeeper.resume()
    write(source, CLICKS, CTR)
    await until(lambda: backend.publish().revision.number >= 2, "the second revision is published")
    await until(lambda: live.revision.number == 2, "the second revision is live")
    following.cancel()


async def test_readers_follow_a_server_that_was_restarted(
    zookeeper: ZooKeeperServer, backend: ZookeeperCatalog, reader: ZookeeperCatalog
) -> None:
    backend.publish()
    live = LiveRevision(reader, [Part(reader)], poll_s=0.05)
    await live.start()
    following = asyncio.create_task(live.follow())
    zookeeper.kill()
    await asyncio.sleep(0.5)
    assert (live.revision.number, reader.current().number) == (1, 1)
    await asyncio.to_thread(zookeeper.restart)
    await until(
        lambda: backend.publish_change(Change({"body": ENTITY}), 1).revision.number == 2,
        "the second revision is published",
    )
    await until(lambda: live.revision.number == 2, "the second revision is live")
    following.cancel()


async def test_readers_follow_an_emptied_server_from_its_first_revision(
    zookeeper: ZooKeeperServer,
    backend: ZookeeperCatalog,
    reader: ZookeeperCatalog,
    url: str,
    source: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Both histories have a revision 1, and readers must not confuse the two."""
    caplog.set_level(logging.WARNING, "kirana.catalog.revisions")
    old = backend.publish().revision
    _make_transactions(zookeeper)
    groups = Revisions(reader, _count_features)
    live = LiveRevision(reader, [Part(reader)], poll_s=0.05)
    await live.start()
    assert await groups.at(live.revision) == 1
    following = asyncio.create_task(live.follow())
    await asyncio.to_thread(zookeeper.kill)
    await until(lambda: live.away_since is not None, "the reader notices the outage")
    assert live.revision == old
    await asyncio.to_thread(zookeeper.empty)
    write(source, CLICKS, CTR)
    publisher = ZookeeperCatalog(url, source, catalog_checks())
    new = (await asyncio.to_thread(publisher.publish)).revision
    assert (new.number, old.number) == (1, 1)
    await until(lambda: live.revision == new, "the new revision is live")
    await until(lambda: live.away_since is None, "the reader notices the end of the outage")
    assert await groups.at(new) == 2
    assert await groups.at(old) == 1
    following.cancel()
    publisher.close()
    messages = [record.message for record in caplog.records]
    assert [message for message in messages if "can't be read" in message] == [
        "the catalog can't be read: this replica stays on revision 1"
    ]
    assert len([message for message in messages if "can be read again" in message]) == 1
    assert "the catalog has a new history: revision 1 of it replaces revision 1" in messages


def test_a_publish_to_an_emptied_server_prints_a_warning(
    zookeeper: ZooKeeperServer, url: str, source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = local_settings(source, {"catalog": url}, environment={})
    publish(settings, source)
    write(source, CLICKS, CTR)
    assert publish(settings, source).revision.number == 2
    assert "warning" not in capsys.readouterr().err
    zookeeper.empty()
    assert publish(settings, source).revision.number == 1
    stderr = capsys.readouterr().err
    assert f"{url} has lost its history: it was at revision 2" in stderr
    assert "Revision 1 starts a new history" in stderr


def test_a_lost_catalog_refuses_changes_but_can_be_published_again(
    zookeeper: ZooKeeperServer, url: str, backend: ZookeeperCatalog
) -> None:
    backend.publish()
    wait_for_revision(backend, 1)
    zookeeper.empty()

    def refused() -> bool:
        with pytest.raises(Conflict, match="run 'kirana apply'"):
            backend.publish_change(Change({"body": ENTITY}), None)
        return True

    wait_for(refused, "the backend is connected again", ignoring=Unavailable)
    revision = backend.publish().revision
    other = ZookeeperCatalog(url, None, catalog_checks())
    assert list(other.load(revision).entities) == ["product"]
    other.close()


def test_a_server_that_does_not_listen_is_unavailable() -> None:
    (port,) = free_ports(1)
    backend = ZookeeperCatalog(f"zk://127.0.0.1:{port}/shop", None, catalog_checks())
    with pytest.raises(Unavailable, match=f"zk://127.0.0.1:{port}/shop does not answer"):
        backend.current()


def test_a_publisher_that_was_overtaken_publishes_nothing(
    url: str, backend: ZookeeperCatalog, reader: ZookeeperCatalog, source: Path
) -> None:
    backend.publish()
    has_checked, overtaken = threading.Event(), threading.Event()

    class Slow(ZookeeperCatalog):
        """A backend that waits after its check until another publish is done."""

        def _check(
            self, live: Catalog | None, revision: Revision, *, trusted: bool = False
        ) -> Checked:
            checked = super()._check(live, revision, trusted=trusted)
            has_checked.set()
            assert overtaken.wait(10)
            return checked

    slow = Slow(url, source)
    write(source, CLICKS, CTR)
    conflicts: list[Conflict] = []

    def publish() -> None:
        try:
            slow.publish()
        except Conflict as error:
            conflicts.append(error)

    thread = threading.Thread(target=publish)
    thread.start()
    assert has_checked.wait(10)
    assert backend.publish_change(Change({"body": ENTITY}), None).revision.number == 2
    overtaken.set()
    thread.join()
    slow.close()
    assert [conflict.message for conflict in conflicts] == [
        "another publisher made revision 2 in the meantime: check it, then publish again"
    ]
    wait_for_revision(reader, 2)
    assert len(reader.load(nth(reader, 2)).groups["product.stats"].versions) == 1


def test_a_broken_revision_is_an_error_and_the_last_good_one_stays(
    zookeeper: ZooKeeperServer, url: str, backend: ZookeeperCatalog, reader: ZookeeperCatalog
) -> None:
    backend.publish()
    root = "/" + url.partition("?")[0].rpartition("/")[2]
    client = KazooClient(zookeeper.address)
    client.start()
    client.create(f"{root}/revisions/2", b"{}")
    client.set(f"{root}/current", f"2 {backend.current().catalog}".encode())
    wait_for_revision(reader, 2)
    with pytest.raises(CatalogError, match="this revision is damaged"):
        reader.load(nth(reader, 2))
    assert reader.load(nth(reader, 1)).revision.number == 1
    client.set(f"{root}/current", b"rubbish")
    client.stop()
    client.close()
    assert reader.current().number == 2


def test_a_damaged_node_is_named_and_does_not_hide_other_revisions(
    zookeeper: ZooKeeperServer, url: str, backend: ZookeeperCatalog, source: Path
) -> None:
    backend.publish()
    write(source, CTR)
    wait_for_revision(backend, 1)
    backend.publish()
    root = url.partition("?")[0].removeprefix(f"zk://{zookeeper.address}")
    client = KazooClient(hosts=zookeeper.address)
    client.start()
    client.set(f"{root}/revisions/1", b"rubbish")
    assert [record.revision for record in backend.history(10)] == [2]
    client.set(f"{root}/current", b"rubbish")
    with pytest.raises(CatalogError, match="rubbish") as caught:
        backend.publish()
    assert [problem.file for problem in caught.value.problems] == [f"{root}/current"]
    client.stop()
    client.close()


def test_nodes_are_readable_text(
    zookeeper: ZooKeeperServer, url: str, backend: ZookeeperCatalog
) -> None:
    backend.publish()
    root = "/" + url.partition("?")[0].rpartition("/")[2]
    client = KazooClient(zookeeper.address)
    client.start()
    assert client.get(f"{root}/current")[0] == f"1 {backend.current().catalog}".encode()
    version = client.get(f"{root}/versions/product.stats/1")[0]
    (digest,) = client.get_children(f"{root}/objects/feature_group/product.stats")
    group = client.get(f"{root}/objects/feature_group/product.stats/{digest}")[0]
    client.stop()
    client.close()
    assert b'"name": "clicks"' in version
    assert b'"fingerprint"' in version
    assert b'"ttl":"7d"' in group


def test_a_publish_removes_old_revisions_and_their_objects(
    zookeeper: ZooKeeperServer, url: str, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zookeeper_nodes, "UNUSED_MS", 0)
    monkeypatch.setattr(zookeeper_catalog, "PRUNE_EVERY", 5)
    backend = ZookeeperCatalog(url, source, catalog_checks(), kept=3)
    for keep in range(1, 6):
        event = {"kind": "event_type", "name": "click", "keep": keep}
        if keep == 1:
            backend.publish()
        else:
            backend.publish_change(Change({"body": event}), keep - 1)
    assert [record.revision for record in backend.history(10)] == [5, 4, 3]
    assert [len(backend.load(nth(backend, number)).event_types) for number in (3, 4, 5)] == [
        1,
        1,
        1,
    ]
    with pytest.raises(Unknown):
        backend.load(nth(backend, 2))
    root = url.partition("?")[0].removeprefix(f"zk://{zookeeper.address}")
    client = KazooClient(zookeeper.address)
    client.start()
    assert len(client.get_children(f"{root}/objects/event_type/click")) == 3
    assert len(client.get_children(f"{root}/objects/entity/product")) == 1
    client.stop()
    client.close()
    backend.close()


def test_an_object_that_is_too_large_for_a_node_is_refused(backend: ZookeeperCatalog) -> None:
    title = {"name": "title", "dtype": "string", "default": "x" * 1_100_000}
    huge = {"kind": "feature_group", "name": "product.huge", "features": [title]}
    backend.publish()
    with pytest.raises(CatalogError, match="the limit of a ZooKeeper node is 1000000"):
        backend.publish_change(Change({"body": huge}), None)
    assert backend.current().number == 1


@pytest.mark.parametrize(
    "wrong",
    [
        *("zk://", "zk://host:2181", "zk://host:2181/", "zk:///root"),
        *("zk://host:abc/root", "zk://host/root", "zk://h:1/root?session_timeout=x"),
    ],
)
def test_a_wrong_url_is_refused(wrong: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        ZookeeperCatalog(wrong, None, catalog_checks())
    assert caught.value.field == "catalog"
