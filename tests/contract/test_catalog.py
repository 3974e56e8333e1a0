"""Tests that every catalog backend passes: a folder, and a real ZooKeeper."""

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
from kirana.serving.checks import catalog_checks
from tests.contract.catalog_source import CLICKS, CTR, ENTITY, GROUP, wait_for_revision, write
from tests.support import nth
from tests.zookeeper_server import ZooKeeperServer

Open = Callable[[], CatalogBackend]


@pytest.fixture(params=["dir", pytest.param("zk", marks=pytest.mark.zookeeper)])
def open_backend(request: pytest.FixtureRequest, source: Path) -> Iterator[Open]:
    """Yield a function that opens the same catalog anew each time, as another process would."""
    backends: list[CatalogBackend] = []
    if request.param == "zk":
        server: ZooKeeperServer = request.getfixturevalue("zookeeper")
        url = f"zk://{server.address}/{uuid4().hex}"

    def make() -> CatalogBackend:
        backend = (
            DirectoryCatalog(source, catalog_checks())
            if request.param == "dir"
            else ZookeeperCatalog(url, source, catalog_checks())
        )
        backends.append(backend)
        return backend

    yield make
    for backend in backends:
        backend.close()


def test_an_unpublished_catalog_has_no_revisions(open_backend: Open) -> None:
    backend = open_backend()
    assert backend.current().number == 0
    assert backend.history(10) == []
    with pytest.raises(Unknown):
        backend.load(nth(backend, 1))


def test_a_published_revision_is_read_by_other_backends(open_backend: Open) -> None:
    backend, other = open_backend(), open_backend()
    assert other.current().number == 0
    published = backend.publish()
    assert (published.revision.number, published.changed) == (1, True)
    assert [version.number for version in published.checked.added.versions] == [1]
    wait_for_revision(other, 1)
    catalog = other.load(nth(other, 1))
    assert catalog.revision == published.revision == other.current()
    assert list(catalog.entities) == ["product"]
    group = catalog.groups["product.stats"]
    assert (group.ttl_ms, group.codec, group.entity.keys[0].name) == (
        7 * 86_400_000,
        "packed",
        "product_id",
    )
    assert [feature.name for feature in group.current.features] == ["clicks"]
    assert (
        group.current.fingerprint
        == backend.load(nth(backend, 1)).groups["product.stats"].current.fingerprint
    )


def test_checking_publishes_nothing(open_backend: Open) -> None:
    backend = open_backend()
    checked = backend.check()
    assert list(checked.catalog.groups) == ["product.stats"]
    assert [version.number for version in checked.added.versions] == [1]
    assert [record.number for record in checked.added.storage] == [1]
    assert backend.current().number == 0


def test_publishing_an_unchanged_catalog_adds_no_revision(open_backend: Open) -> None:
    backend = open_backend()
    backend.publish()
    published = open_backend().publish()
    assert (published.revision.number, published.changed, bool(published.checked.added)) == (
        1,
        False,
        False,
    )


def test_schema_versions_are_appended_and_old_revisions_stay(
    open_backend: Open, source: Path
) -> None:
    backend = open_backend()
    backend.publish()
    write(source, CLICKS, CTR)
    assert [version.number for version in backend.publish().checked.added.versions] == [2]
    write(source, CTR)
    backend.publish()
    for reader in (backend, open_backend()):
        wait_for_revision(reader, 3)
        names = [
            [feature.name for feature in version.features]
            for version in reader.load(nth(reader, 3)).groups["product.stats"].versions
        ]
        assert names == [["clicks"], ["clicks", "ctr"], ["ctr"]]
        assert len(reader.load(nth(reader, 1)).groups["product.stats"].versions) == 1


def test_schema_versions_outlive_their_group(open_backend: Open, source: Path) -> None:
    backend = open_backend()
    backend.publish()
    (source / "catalog.yaml").write_text(GROUP.format(features=CLICKS).partition("---")[0])
    assert backend.publish().changed
    write(source, CLICKS, CTR)
    backend.publish()
    wait_for_revision(backend, 3)
    assert len(backend.load(nth(backend, 3)).groups["product.stats"].versions) == 2


def test_a_changed_dtype_is_refused_with_the_reason(open_backend: Open, source: Path) -> None:
    backend = open_backend()
    backend.publish()
    write(source, "{name: clicks, dtype: int64}")
    with pytest.raises(CatalogError) as caught:
        backend.publish()
    (problem,) = caught.value.problems
    assert problem.path == "features[0]"
    assert "another dtype or shape needs another name" in problem.message
    assert open_backend().current().number == 1


def test_a_change_is_one_revision_and_one_record_of_the_history(open_backend: Open) -> None:
    backend = open_backend()
    backend.publish()
    change = Change({"body": ENTITY}, {"body": ("feature_group", "product.stats")})
    assert backend.publish_change(change, 1).revision.number == 2
    wait_for_revision(backend, 2)
    catalog = backend.load(nth(backend, 2))
    assert (sorted(catalog.entities), list(catalog.groups)) == (["product", "user"], [])
    newest, first = backend.history(10)
    assert (newest.revision, newest.put, newest.deleted) == (
        2,
        ["entity user"],
        ["feature_group product.stats"],
    )
    assert first.revision == 1
    assert len(backend.history(1)) == 1


@pytest.mark.parametrize("expected", [0, 2, 7])
def test_expecting_another_revision_is_a_conflict(open_backend: Open, expected: int) -> None:
    backend = open_backend()
    backend.publish()
    with pytest.raises(Conflict) as caught:
        backend.publish_change(Change({"body": ENTITY}), expected)
    assert caught.value.field == "expected_revision"
    with pytest.raises(Conflict):
        backend.publish(expected_revision=expected)
    assert open_backend().current().number == 1


def test_exactly_one_of_several_concurrent_publishers_succeeds(open_backend: Open) -> None:
    open_backend().publish()
    backends = [open_backend() for _ in range(4)]
    start = threading.Barrier(len(backends))
    outcomes: list[int | Conflict] = []

    def publish(number: int, backend: CatalogBackend) -> None:
        record = {"kind": "entity", "name": f"e{number}", "keys": [{"name": "id"}]}
        start.wait()
        try:
            outcomes.append(backend.publish_change(Change({"body": record}), 1).revision.number)
        except Conflict as error:
            outcomes.append(error)

    threads = [threading.Thread(target=publish, args=numbered) for numbered in enumerate(backends)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    conflicts = [outcome for outcome in outcomes if isinstance(outcome, Conflict)]
    assert [outcome for outcome in outcomes if not isinstance(outcome, Conflict)] == [2]
    assert len(conflicts) == len(backends) - 1
    assert all("revision 2" in conflict.message for conflict in conflicts)
    reader = open_backend()
    wait_for_revision(reader, 2)
    assert len(reader.load(nth(reader, 2)).entities) == 2
