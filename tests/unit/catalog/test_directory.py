"""The catalog in a directory: publishing, loading old revisions, and concurrent publishers."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from kirana.catalog.directory import DirectoryCatalog
from kirana.errors import CatalogError, Conflict, Unknown
from kirana.serving.checks import catalog_checks
from tests.support import SHOP, nth, write_shop

NEW_FEATURE = SHOP.replace(
    "  - {name: ctr, dtype: float32, default: 0.5}",
    "  - {name: ctr, dtype: float32, default: 0.5}\n  - {name: views, dtype: uint32}",
)
BROKEN = SHOP.replace("4 * p_order", "4 * p_oder")


@pytest.fixture
def catalog(tmp_path: Path) -> DirectoryCatalog:
    """Return the catalog of a shop that is not published yet."""
    return DirectoryCatalog(write_shop(tmp_path), catalog_checks())


def change(catalog: DirectoryCatalog, text: str) -> None:
    (catalog.folder / "shop.yaml").write_text(text)


def files_of(folder: Path) -> dict[str, bytes]:
    """Return the content of every file below a folder, except lock files."""
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.name != "lock"
    }


def version_file(catalog: DirectoryCatalog, number: int) -> Path:
    return catalog.folder / "versions" / "product.stats" / f"{number}.yaml"


def revision_file(catalog: DirectoryCatalog, number: int) -> Path:
    return catalog.folder / ".kirana" / "revisions" / str(number) / "catalog.json"


def test_nothing_is_live_before_the_first_publish(catalog: DirectoryCatalog) -> None:
    assert catalog.current().number == 0
    with pytest.raises(Unknown, match="unknown revision '1': none is defined"):
        catalog.load(nth(catalog, 1))


def test_checking_changes_no_file(catalog: DirectoryCatalog) -> None:
    before = files_of(catalog.folder)
    checked = catalog.check()
    assert {version.group for version in checked.added.versions} == set(checked.catalog.groups)
    assert {record.entity for record in checked.added.storage} == set(checked.catalog.entities)
    assert files_of(catalog.folder) == before


def test_publishing_makes_the_next_revision_live(catalog: DirectoryCatalog) -> None:
    first = catalog.publish()
    assert (first.revision.number, first.changed) == (1, True)
    assert catalog.current() == first.revision
    change(catalog, SHOP.replace("k: 3", "k: 4"))
    second = catalog.publish()
    assert (second.revision.number, second.changed, bool(second.checked.added)) == (2, True, False)
    assert catalog.current() == second.revision
    assert second.revision.catalog == first.revision.catalog != ""


def test_publishing_an_unchanged_catalog_changes_no_file(catalog: DirectoryCatalog) -> None:
    catalog.publish()
    before = files_of(catalog.folder)
    again = catalog.publish()
    assert (again.revision.number, again.changed, bool(again.checked.added)) == (1, False, False)
    assert files_of(catalog.folder) == before


def test_comments_and_the_order_of_objects_do_not_count_as_changes(
    catalog: DirectoryCatalog,
) -> None:
    catalog.publish()
    change(catalog, "# hello\n" + "---\n".join(reversed(SHOP.split("---\n"))))
    assert not catalog.publish().changed


def test_loading_a_revision_returns_the_published_objects(catalog: DirectoryCatalog) -> None:
    source = catalog.check().catalog
    catalog.publish()
    loaded = catalog.load(nth(catalog, 1))
    assert loaded.revision == catalog.current()
    for name in ("entities", "groups", "event_types", "generators", "models", "inferflows"):
        assert getattr(loaded, name) == getattr(source, name), name
    assert loaded.flows == source.flows
    assert sorted(map(str, loaded.objects)) == sorted(map(str, source.objects))


def test_an_old_revision_stays_as_it_was(catalog: DirectoryCatalog) -> None:
    catalog.publish()
    change(catalog, NEW_FEATURE)
    catalog.publish()
    assert [
        f.name for f in catalog.load(nth(catalog, 1)).groups["product.stats"].current.features
    ] == [
        "clicks",
        "ctr",
    ]
    assert len(catalog.load(nth(catalog, 2)).groups["product.stats"].versions) == 2


@pytest.mark.parametrize("value", [".nan", ".inf", "-.inf"])
def test_a_non_finite_default_survives_publishing_and_loading(
    catalog: DirectoryCatalog, value: str
) -> None:
    change(catalog, SHOP.replace("float32, default: 0.5", f"float32, default: {value}"))
    catalog.publish()
    _, feature = catalog.load(nth(catalog, 1)).feature("product.stats.ctr")
    expected = float(value.replace(".", ""))
    loaded = float(feature.default_array())
    assert loaded == expected or (math.isnan(loaded) and math.isnan(expected))
    assert not catalog.publish().changed


def test_a_missing_revision_is_unknown(catalog: DirectoryCatalog) -> None:
    catalog.publish()
    with pytest.raises(Unknown, match="unknown revision '7': there is only '1'") as caught:
        catalog.load(nth(catalog, 7))
    assert caught.value.code == "unknown_revision"


def test_a_publish_that_expects_the_live_revision_succeeds(catalog: DirectoryCatalog) -> None:
    assert catalog.publish(expected_revision=0).revision.number == 1
    change(catalog, NEW_FEATURE)
    assert catalog.publish(expected_revision=1).revision.number == 2


def test_a_publish_that_expects_another_revision_conflicts(catalog: DirectoryCatalog) -> None:
    catalog.publish()
    change(catalog, NEW_FEATURE)
    before = files_of(catalog.folder)
    with pytest.raises(Conflict, match="revision 1 is live, not 0") as caught:
        catalog.publish(expected_revision=0)
    assert caught.value.field == "expected_revision"
    assert files_of(catalog.folder) == before


def test_publishing_a_broken_catalog_changes_no_file(catalog: DirectoryCatalog) -> None:
    catalog.publish()
    change(catalog, BROKEN.replace("name: ctr,", "name: ctr_7d,"))
    before = files_of(catalog.folder)
    with pytest.raises(CatalogError):
        catalog.publish()
    assert catalog.current().number == 1
    assert files_of(catalog.folder) == before


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match="does not exist"):
        DirectoryCatalog(tmp_path / "nowhere", catalog_checks()).publish()
    assert not (tmp_path / "nowhere").exists()


def test_each_group_gets_its_first_schema_version(catalog: DirectoryCatalog) -> None:
    published = catalog.publish()
    assert {(version.group, version.number) for version in published.checked.added.versions} == {
        (group, 1) for group in catalog.load(nth(catalog, 1)).groups
    }
    assert version_file(catalog, 1).is_file()


def test_changed_features_make_the_next_schema_version(catalog: DirectoryCatalog) -> None:
    catalog.publish()
    first = version_file(catalog, 1).read_bytes()
    change(catalog, NEW_FEATURE)
    (added,) = catalog.publish().checked.added.versions
    assert (added.group, added.number) == ("product.stats", 2)
    assert version_file(catalog, 1).read_bytes() == first
    numbers = [
        version.number for version in catalog.load(nth(catalog, 2)).groups["product.stats"].versions
    ]
    assert numbers == [1, 2]


def test_returning_to_older_features_makes_a_new_schema_version(catalog: DirectoryCatalog) -> None:
    for number, text in enumerate((SHOP, NEW_FEATURE, SHOP), start=1):
        change(catalog, text)
        assert catalog.publish().revision.number == number
    versions = catalog.load(nth(catalog, 3)).groups["product.stats"].versions
    assert [version.number for version in versions] == [1, 2, 3]
    assert versions[0].fingerprint == versions[2].fingerprint


def test_more_than_nine_versions_stay_in_numeric_order(catalog: DirectoryCatalog) -> None:
    for number in range(1, 12):
        change(catalog, SHOP.replace("int32, default: 0", f"int32, default: {number}"))
        catalog.publish()
    defaults = [
        v.feature("clicks").default
        for v in catalog.load(nth(catalog, 11)).groups["product.stats"].versions
    ]
    assert defaults == list(range(1, 12))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("dtype: int32", "dtype: int64"),
        ("name: clicks", "name: klicks"),
        ("default: 0.5", "default: 0.7"),
    ],
    ids=["dtype", "name", "default"],
)
def test_an_edited_version_file_is_refused(catalog: DirectoryCatalog, old: str, new: str) -> None:
    catalog.publish()
    file = version_file(catalog, 1)
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
    with pytest.raises(CatalogError, match="restore it from version control") as caught:
        catalog.publish()
    assert caught.value.problems[0].file == str(file)


@pytest.mark.parametrize(
    "text", ["", "[]", "a: [", "features: 7\nfingerprint: '0'\n", "fingerprint: x\nfeatures: []\n"]
)
def test_an_unreadable_version_file_is_refused(catalog: DirectoryCatalog, text: str) -> None:
    catalog.publish()
    version_file(catalog, 1).write_text(text)
    with pytest.raises(CatalogError, match="this is not a schema version") as caught:
        catalog.check()
    assert caught.value.problems[0].file == str(version_file(catalog, 1))


def test_a_gap_in_the_versions_is_refused(catalog: DirectoryCatalog) -> None:
    catalog.publish()
    change(catalog, NEW_FEATURE)
    catalog.publish()
    version_file(catalog, 1).unlink()
    with pytest.raises(CatalogError, match=r"schema version 1 of 'product\.stats' is missing"):
        catalog.publish()


def test_the_number_of_a_lost_version_is_never_given_to_other_features(
    catalog: DirectoryCatalog,
) -> None:
    """Stored rows carry the number of their version, so a lost file must not free its number."""
    catalog.publish()
    change(catalog, NEW_FEATURE)
    catalog.publish()
    old = catalog.load(nth(catalog, 2)).groups["product.stats"].version(2)
    version_file(catalog, 2).unlink()
    change(catalog, NEW_FEATURE.replace("name: views", "name: sales"))
    try:
        catalog.publish()
    except CatalogError:
        return
    assert catalog.load(catalog.current()).groups["product.stats"].version(2) == old


def test_a_version_file_written_before_a_crash_is_used(catalog: DirectoryCatalog) -> None:
    catalog.publish()
    change(catalog, NEW_FEATURE)
    catalog.publish()
    identity = catalog.current().catalog
    (catalog.folder / ".kirana" / "CURRENT").write_text(f"1 {identity}")
    again = catalog.publish()
    assert (again.revision.number, again.changed, bool(again.checked.added)) == (3, True, False)
    assert len(catalog.load(nth(catalog, 3)).groups["product.stats"].versions) == 2


@pytest.mark.parametrize("text", [b"", b"one", b"-1", b"1.5", b"\xff\xfe"])
def test_an_unreadable_current_file_counts_as_nothing_published(
    catalog: DirectoryCatalog, text: bytes
) -> None:
    catalog.publish()
    (catalog.folder / ".kirana" / "CURRENT").write_bytes(text)
    assert catalog.current().number == 0
    assert catalog.publish().revision.number == 2
    assert catalog.current().number == 2


def test_publishing_replaces_a_live_revision_whose_file_is_lost(catalog: DirectoryCatalog) -> None:
    catalog.publish()
    revision_file(catalog, 1).unlink()
    with pytest.raises(Unknown):
        catalog.load(nth(catalog, 1))
    again = catalog.publish()
    assert again.changed
    assert catalog.load(again.revision).revision == again.revision


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not json",
        b"\xff",
        b"[]",
        b"{}",
        b'{"objects": [1], "versions": {}}',
        b'{"objects": [{"kind": "nothing"}], "versions": {}}',
        b'{"objects": [{"kind": "entity", "name": "a"}], "versions": {}}',
        b'{"objects": [], "versions": []}',
        b'{"objects": [], "versions": {"a.b": [[{"name": "x", "dtype": "y"}]]}}',
    ],
)
def test_an_unreadable_revision_file_is_refused_and_named(
    catalog: DirectoryCatalog, content: bytes
) -> None:
    catalog.publish()
    file = revision_file(catalog, 1)
    file.write_bytes(content)
    with pytest.raises(CatalogError) as caught:
        catalog.load(nth(catalog, 1))
    assert caught.value.problems[0].file == str(file)


PUBLISHER = """
import json, os, sys
from pathlib import Path
from kirana.catalog.directory import DirectoryCatalog
from kirana.serving.checks import catalog_checks

folder, name = Path(sys.argv[1]), sys.argv[2]
catalog = DirectoryCatalog(folder, catalog_checks())
sys.stdin.readline()
numbers = []
for keep in range(1, 9):
    temporary = folder / f"{name}.new"
    temporary.write_text(f"kind: event_type\\nname: {name}\\nkeep: {keep}\\n")
    os.replace(temporary, folder / f"{name}.yaml")
    published = catalog.publish()
    if published.changed:
        numbers.append(published.revision.number)
print(json.dumps(numbers))
"""


def test_concurrent_publishers_make_different_revisions(
    catalog: DirectoryCatalog,
) -> None:
    catalog.publish()
    publishers = [
        subprocess.Popen(
            [sys.executable, "-c", PUBLISHER, str(catalog.folder), name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in ("ann", "bob")
    ]
    numbers: list[int] = []
    for publisher in publishers:
        assert publisher.stdin is not None
        publisher.stdin.write("go\n")
        publisher.stdin.flush()
    for publisher in publishers:
        output, _ = publisher.communicate(timeout=60)
        assert publisher.returncode == 0
        numbers += json.loads(output)
    assert sorted(numbers) == list(range(2, len(numbers) + 2))
    assert catalog.current().number == max(numbers)
    live = catalog.load(catalog.current())
    assert {name: live.event_types[name].keep for name in ("ann", "bob")} == {"ann": 8, "bob": 8}
