"""What every backend of a catalog does: a folder, and a real ZooKeeper."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from kirana.catalog.changes import Change
from kirana.catalog.directory import DirectoryCatalog
from kirana.catalog.publishing import CatalogBackend
from kirana.catalog.zookeeper import ZookeeperCatalog
from kirana.errors import CatalogError, Conflict, Unknown
from kirana.serving.checks import checks_of
from tests.contract.catalog_source import CLICKS, CTR, ENTITY, GROUP, seen, write
from tests.support import nth
from tests.zookeeper_server import ZooKeeperServer

Open = Callable[[], CatalogBackend]


@pytest.fixture(params=["dir", pytest.param("zk", marks=pytest.mark.zookeeper)])
def opened(request: pytest.FixtureRequest, source: Path) -> Iterator[Open]:
    """Each call opens the same backend anew, as another process would."""
    backends: list[CatalogBackend] = []
    if request.param == "zk":
        server: ZooKeeperServer = request.getfixturevalue("zookeeper")
        url = f"zk://{server.address}/{uuid4().hex}"

    def make() -> CatalogBackend:
        backend = (
            DirectoryCatalog(source, checks_of())
            if request.param == "dir"
            else ZookeeperCatalog(url, source, checks_of())
        )
        backends.append(backend)
        return backend

    yield make
    for backend in backends:
        backend.close()


def test_before_the_first_revision_there_is_none(opened: Open) -> None:
    backend = opened()
    assert backend.current().number == 0
    assert backend.history(10) == []
    with pytest.raises(Unknown):
        backend.load(nth(backend, 1))


def test_what_was_published_is_read_by_others(opened: Open) -> None:
    backend, other = opened(), opened()
    assert other.current().number == 0
    published = backend.publish()
    assert (published.revision.number, published.changed) == (1, True)
    assert [version.number for version in published.checked.added.versions] == [1]
    seen(other, 1)
    found = other.load(nth(other, 1))
    assert found.revision == published.revision == other.current()
    assert list(found.entities) == ["product"]
    group = found.groups["product.stats"]
    assert (group.ttl_ms, group.codec, group.entity.keys[0].name) == (
        7 * 86_400_000,
        "packed",
        "product_id",
    )
    assert [each.name for each in group.current.features] == ["clicks"]
    assert (
        group.current.fingerprint
        == backend.load(nth(backend, 1)).groups["product.stats"].current.fingerprint
    )


def test_checking_publishes_nothing(opened: Open) -> None:
    backend = opened()
    checked = backend.check()
    assert list(checked.catalog.groups) == ["product.stats"]
    assert [version.number for version in checked.added.versions] == [1]
    assert [record.number for record in checked.added.storage] == [1]
    assert backend.current().number == 0


def test_the_same_again_is_no_revision(opened: Open) -> None:
    backend = opened()
    backend.publish()
    again = opened().publish()
    assert (again.revision.number, again.changed, bool(again.checked.added)) == (1, False, False)


def test_schema_versions_are_appended_and_old_revisions_stay(opened: Open, source: Path) -> None:
    backend = opened()
    backend.publish()
    write(source, CLICKS, CTR)
    assert [each.number for each in backend.publish().checked.added.versions] == [2]
    write(source, CTR)
    backend.publish()
    for reader in (backend, opened()):
        seen(reader, 3)
        names = [
            [each.name for each in version.features]
            for version in reader.load(nth(reader, 3)).groups["product.stats"].versions
        ]
        assert names == [["clicks"], ["clicks", "ctr"], ["ctr"]]
        assert len(reader.load(nth(reader, 1)).groups["product.stats"].versions) == 1


def test_versions_outlive_their_group(opened: Open, source: Path) -> None:
    backend = opened()
    backend.publish()
    (source / "catalog.yaml").write_text(GROUP.format(features=CLICKS).partition("---")[0])
    assert backend.publish().changed
    write(source, CLICKS, CTR)
    backend.publish()
    seen(backend, 3)
    assert len(backend.load(nth(backend, 3)).groups["product.stats"].versions) == 2


def test_another_dtype_is_refused_with_the_reason(opened: Open, source: Path) -> None:
    backend = opened()
    backend.publish()
    write(source, "{name: clicks, dtype: int64}")
    with pytest.raises(CatalogError) as caught:
        backend.publish()
    (problem,) = caught.value.problems
    assert problem.path == "features[0]"
    assert "another dtype or shape needs another name" in problem.message
    assert opened().current().number == 1


def test_a_change_is_one_revision_with_its_record(opened: Open) -> None:
    backend = opened()
    backend.publish()
    change = Change({"body": ENTITY}, {"body": ("feature_group", "product.stats")})
    assert backend.publish_change(change, 1).revision.number == 2
    seen(backend, 2)
    found = backend.load(nth(backend, 2))
    assert (sorted(found.entities), list(found.groups)) == (["product", "user"], [])
    newest, first = backend.history(10)
    assert (newest.revision, newest.put, newest.deleted) == (
        2,
        ["entity user"],
        ["feature_group product.stats"],
    )
    assert first.revision == 1
    assert len(backend.history(1)) == 1


@pytest.mark.parametrize("expected", [0, 2, 7])
def test_what_expects_another_revision_is_a_conflict(opened: Open, expected: int) -> None:
    backend = opened()
    backend.publish()
    with pytest.raises(Conflict) as caught:
        backend.publish_change(Change({"body": ENTITY}), expected)
    assert caught.value.field == "expected_revision"
    with pytest.raises(Conflict):
        backend.publish(expected_revision=expected)
    assert opened().current().number == 1


def test_of_two_who_publish_at_once_one_wins(opened: Open) -> None:
    opened().publish()
    backends = [opened() for _ in range(4)]
    start = threading.Barrier(len(backends))
    ends: list[int | Conflict] = []

    def publish(at: int, backend: CatalogBackend) -> None:
        record = {"kind": "entity", "name": f"e{at}", "keys": [{"name": "id"}]}
        start.wait()
        try:
            ends.append(backend.publish_change(Change({"body": record}), 1).revision.number)
        except Conflict as error:
            ends.append(error)

    threads = [threading.Thread(target=publish, args=each) for each in enumerate(backends)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    losers = [each for each in ends if isinstance(each, Conflict)]
    assert [each for each in ends if not isinstance(each, Conflict)] == [2]
    assert len(losers) == len(backends) - 1
    assert all("revision 2" in each.message for each in losers)
    reader = opened()
    seen(reader, 2)
    assert len(reader.load(nth(reader, 2)).entities) == 2
