"""The catalog in a ZooKeeper that stalls, dies, comes back, and forgets a session."""

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
from kirana.serving.checks import checks_of
from kirana.serving.environment import free_ports
from tests.contract.catalog_source import CLICKS, CTR, ENTITY, seen, write
from tests.support import nth
from tests.waiting import wait_for, wait_until
from tests.zookeeper_server import ZooKeeperServer

SESSION_S = 1.0


class Part:
    """Loads each revision, as the parts of a replica do."""

    def __init__(self, backend: ZookeeperCatalog) -> None:
        self._backend = backend

    async def prepare(self, revision: Revision) -> None:
        await asyncio.to_thread(self._backend.load, revision)


def _make_old(zookeeper: ZooKeeperServer) -> None:
    """Let the server see so much that a client takes an empty one for one that is behind."""
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
    opened = ZookeeperCatalog(url, source, checks_of())
    yield opened
    opened.close()


@pytest.fixture
def reader(url: str) -> Iterator[ZookeeperCatalog]:
    opened = ZookeeperCatalog(url, None, checks_of())
    yield opened
    opened.close()


async def until(reached: Callable[[], bool], what: str) -> None:
    """Wait in a thread; a ZooKeeper that is away counts as not yet."""
    await wait_until(lambda: asyncio.to_thread(reached), what, ignoring=Unavailable)


async def test_readers_stay_on_the_last_revision_while_it_stalls_and_follow_after_it(
    zookeeper: ZooKeeperServer, backend: ZookeeperCatalog, reader: ZookeeperCatalog, source: Path
) -> None:
    backend.publish()
    live = LiveRevision(reader, [Part(reader)], poll_s=0.05)
    await live.start()
    following = asyncio.create_task(live.follow())
    zookeeper.pause()
    try:
        # long enough for the server to end the session as it goes on
        await asyncio.sleep(3 * SESSION_S)
        assert (live.revision.number, reader.current().number) == (1, 1)
        with pytest.raises(Unavailable):
            await asyncio.to_thread(backend.publish_change, Change({"body": ENTITY}), None)
    finally:
        zookeeper.resume()
    write(source, CLICKS, CTR)
    await until(lambda: backend.publish().revision.number >= 2, "the second is published")
    await until(lambda: live.revision.number == 2, "the second is live")
    following.cancel()


async def test_readers_follow_a_server_that_died_and_came_back(
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
        "the second is published",
    )
    await until(lambda: live.revision.number == 2, "the second is live")
    following.cancel()


async def test_a_server_that_came_back_empty_is_followed_from_its_first_revision_on(
    zookeeper: ZooKeeperServer,
    backend: ZookeeperCatalog,
    reader: ZookeeperCatalog,
    url: str,
    source: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Both histories have a revision 1, of other content: neither is taken for the other."""
    caplog.set_level(logging.WARNING, "kirana.catalog.revisions")
    old = backend.publish().revision
    _make_old(zookeeper)
    groups = Revisions(reader, _count_features)
    live = LiveRevision(reader, [Part(reader)], poll_s=0.05)
    await live.start()
    assert await groups.at(live.revision) == 1
    following = asyncio.create_task(live.follow())
    await asyncio.to_thread(zookeeper.kill)
    await until(lambda: live.away_since is not None, "it is seen to be away")
    assert live.revision == old
    await asyncio.to_thread(zookeeper.empty)
    write(source, CLICKS, CTR)
    anew = ZookeeperCatalog(url, source, checks_of())
    new = (await asyncio.to_thread(anew.publish)).revision
    assert (new.number, old.number) == (1, 1)
    await until(lambda: live.revision == new, "the newer is live")
    await until(lambda: live.away_since is None, "it is seen to be back")
    assert await groups.at(new) == 2
    assert await groups.at(old) == 1
    following.cancel()
    anew.close()
    said = [record.message for record in caplog.records]
    assert [each for each in said if "is away" in each] == [
        "the catalog is away: revision 1 stays live"
    ]
    assert len([each for each in said if "is there again" in each]) == 1
    assert "the catalog began anew: revision 1 replaces 1" in said


def test_who_publishes_to_a_catalog_that_begins_anew_is_warned(
    zookeeper: ZooKeeperServer, url: str, source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = local_settings(source, {"catalog": url}, environment={})
    publish(settings, source)
    write(source, CLICKS, CTR)
    assert publish(settings, source).revision.number == 2
    assert "warning" not in capsys.readouterr().err
    zookeeper.empty()
    assert publish(settings, source).revision.number == 1
    said = capsys.readouterr().err
    assert f"{url} was at revision 2 when it was published from here" in said
    assert "its revision 1 is of another history" in said


def test_a_change_of_a_catalog_that_was_lost_is_refused_and_apply_writes_all_of_it(
    zookeeper: ZooKeeperServer, url: str, backend: ZookeeperCatalog
) -> None:
    backend.publish()
    seen(backend, 1)
    zookeeper.empty()

    def refused() -> bool:
        with pytest.raises(Conflict, match="run 'kirana apply'"):
            backend.publish_change(Change({"body": ENTITY}), None)
        return True

    wait_for(refused, "it is connected again", ignoring=Unavailable)
    anew = backend.publish().revision
    other = ZookeeperCatalog(url, None, checks_of())
    assert list(other.load(anew).entities) == ["product"]
    other.close()


def test_who_finds_no_server_is_told_so_within_seconds() -> None:
    (port,) = free_ports(1)
    backend = ZookeeperCatalog(f"zk://127.0.0.1:{port}/shop", None, checks_of())
    with pytest.raises(Unavailable, match=f"zk://127.0.0.1:{port}/shop does not answer"):
        backend.current()


def test_who_was_overtaken_publishes_nothing(
    url: str, backend: ZookeeperCatalog, reader: ZookeeperCatalog, source: Path
) -> None:
    backend.publish()
    looked, overtaken = threading.Event(), threading.Event()

    class Slow(ZookeeperCatalog):
        """Another publishes between its look at what is live and its own publishing."""

        def _check(
            self, live: Catalog | None, revision: Revision, *, trusted: bool = False
        ) -> Checked:
            found = super()._check(live, revision, trusted=trusted)
            looked.set()
            assert overtaken.wait(10)
            return found

    slow = Slow(url, source)
    write(source, CLICKS, CTR)
    ends: list[Exception] = []

    def publish() -> None:
        try:
            slow.publish()
        except Conflict as error:
            ends.append(error)

    thread = threading.Thread(target=publish)
    thread.start()
    assert looked.wait(10)
    assert backend.publish_change(Change({"body": ENTITY}), None).revision.number == 2
    overtaken.set()
    thread.join()
    slow.close()
    assert [str(each) for each in ends] == [
        "revision 2 was published by another meanwhile: look at it, and publish again"
    ]
    seen(reader, 2)
    assert len(reader.load(nth(reader, 2)).groups["product.stats"].versions) == 1


def test_a_broken_revision_is_told_of_and_the_last_good_one_stays(
    zookeeper: ZooKeeperServer, url: str, backend: ZookeeperCatalog, reader: ZookeeperCatalog
) -> None:
    backend.publish()
    root = "/" + url.partition("?")[0].rpartition("/")[2]
    client = KazooClient(zookeeper.address)
    client.start()
    client.create(f"{root}/revisions/2", b"{}")
    client.set(f"{root}/current", f"2 {backend.current().catalog}".encode())
    seen(reader, 2)
    with pytest.raises(CatalogError, match="this is not a revision"):
        reader.load(nth(reader, 2))
    assert reader.load(nth(reader, 1)).revision.number == 1
    client.set(f"{root}/current", b"rubbish")
    client.stop()
    client.close()
    assert reader.current().number == 2


def test_damage_is_named_and_hides_no_other_revision(
    zookeeper: ZooKeeperServer, url: str, backend: ZookeeperCatalog, source: Path
) -> None:
    backend.publish()
    write(source, CTR)
    seen(backend, 1)
    backend.publish()
    root = url.partition("?")[0].removeprefix(f"zk://{zookeeper.address}")
    client = KazooClient(hosts=zookeeper.address)
    client.start()
    client.set(f"{root}/revisions/1", b"rubbish")
    assert [each.revision for each in backend.history(10)] == [2]
    client.set(f"{root}/current", b"rubbish")
    with pytest.raises(CatalogError, match="rubbish") as caught:
        backend.publish()
    assert [problem.file for problem in caught.value.problems] == [f"{root}/current"]
    client.stop()
    client.close()


def test_people_can_read_it(
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


def test_only_the_last_revisions_and_what_they_name_are_kept(
    zookeeper: ZooKeeperServer, url: str, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zookeeper_nodes, "UNUSED_MS", 0)
    monkeypatch.setattr(zookeeper_catalog, "PRUNE_EVERY", 5)
    backend = ZookeeperCatalog(url, source, checks_of(), kept=3)
    for keep in range(1, 6):
        event = {"kind": "event_type", "name": "click", "keep": keep}
        if keep == 1:
            backend.publish()
        else:
            backend.publish_change(Change({"body": event}), keep - 1)
    assert [each.revision for each in backend.history(10)] == [5, 4, 3]
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


def test_an_object_that_no_node_can_hold_is_refused(backend: ZookeeperCatalog) -> None:
    title = {"name": "title", "dtype": "string", "default": "x" * 1_100_000}
    huge = {"kind": "feature_group", "name": "product.huge", "features": [title]}
    backend.publish()
    with pytest.raises(CatalogError, match="a node of ZooKeeper"):
        backend.publish_change(Change({"body": huge}), None)
    assert backend.current().number == 1


@pytest.mark.parametrize(
    "wrong",
    [
        *("zk://", "zk://host:2181", "zk://host:2181/", "zk:///root"),
        *("zk://host:abc/root", "zk://host/root", "zk://h:1/root?session_timeout=x"),
    ],
)
def test_a_url_that_is_none_is_refused(wrong: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        ZookeeperCatalog(wrong, None, checks_of())
    assert caught.value.field == "catalog"
