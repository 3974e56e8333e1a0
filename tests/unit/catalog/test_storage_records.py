"""Changes that would give stored rows another meaning are refused, even after a delete."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kirana.catalog.changes import Change
from kirana.catalog.directory import DirectoryCatalog
from kirana.errors import CatalogError, Problem
from kirana.schema import Key
from kirana.serving.checks import catalog_checks

KEYS = "[{name: user_id}, {name: genre, dtype: int32}]"


def write(folder: Path, *, keys: str = KEYS, options: str = "") -> DirectoryCatalog:
    """Write a catalog with one entity and one group, without publishing it."""
    folder.mkdir(exist_ok=True)
    (folder / "catalog.yaml").write_text(
        f"kind: entity\nname: user_genre\nkeys: {keys}\n---\n"
        f"kind: feature_group\nname: user_genre.affinity\n{options}"
        "features: [{name: clicks, dtype: int32}]\n"
    )
    return DirectoryCatalog(folder, catalog_checks())


def refused(catalog: DirectoryCatalog) -> Problem:
    """Publish a catalog that must be refused for one problem, and return the problem."""
    live = catalog.current()
    with pytest.raises(CatalogError) as caught:
        catalog.publish()
    (problem,) = caught.value.problems
    assert problem.file.endswith("catalog.yaml")
    assert problem.line > 0
    assert catalog.current() == live
    return problem


OTHER_KEYS = {
    "another order": ("[{name: genre, dtype: int32}, {name: user_id}]", "was key 2"),
    "an added key": (
        "[{name: user_id}, {name: genre, dtype: int32}, {name: x}]",
        "was published with 2 keys",
    ),
    "a removed key": ("[{name: user_id}]", "was published with 2 keys"),
    "a moved key": ("[{name: genre}, {name: rank, dtype: int32}]", "was key 2"),
    "a string instead of an integer": ("[{name: user_id}, {name: genre}]", "was int32"),
    "an integer instead of a string": (
        "[{name: user_id, dtype: int64}, {name: genre, dtype: int32}]",
        "string",
    ),
}


@pytest.mark.parametrize(("keys", "reason"), OTHER_KEYS.values(), ids=OTHER_KEYS)
def test_keys_that_would_read_other_rows_are_refused(
    tmp_path: Path, keys: str, reason: str
) -> None:
    write(tmp_path / "shop").publish()
    live = DirectoryCatalog(tmp_path / "shop", catalog_checks()).current()
    with pytest.raises(CatalogError) as caught:
        write(tmp_path / "shop", keys=keys).publish()
    assert reason in caught.value.message
    assert "define a new entity" in caught.value.message
    assert all(problem.path.startswith("keys") for problem in caught.value.problems)
    assert DirectoryCatalog(tmp_path / "shop", catalog_checks()).current() == live


def test_a_narrower_integer_key_is_refused(tmp_path: Path) -> None:
    wide = KEYS.replace("int32", "int64")
    write(tmp_path / "shop").publish()
    assert write(tmp_path / "shop", keys=wide).publish().revision.number == 2
    assert refused(write(tmp_path / "shop")).path == "keys[1].dtype"


def test_a_key_may_be_renamed_but_not_to_the_old_name_of_another_key(
    tmp_path: Path,
) -> None:
    write(tmp_path / "shop").publish()
    renamed = write(tmp_path / "shop", keys=KEYS.replace("user_id", "person"))
    published = renamed.publish()
    assert [record.number for record in published.checked.added.storage] == [2]
    swapped = "[{name: genre}, {name: kind, dtype: int32}]"
    assert refused(write(tmp_path / "shop", keys=swapped)).path == "keys[0].name"


def test_a_changed_codec_is_refused_but_a_changed_checksum_is_not(tmp_path: Path) -> None:
    write(tmp_path / "shop").publish()
    assert write(tmp_path / "shop", options="checksum: crc32\n").publish().changed
    problem = refused(write(tmp_path / "shop", options="codec: text\n"))
    assert problem.path == "codec"
    assert "give the group another name" in problem.message


def test_the_record_of_a_deleted_entity_still_counts(tmp_path: Path) -> None:
    catalog = write(tmp_path / "shop")
    catalog.publish()
    (tmp_path / "shop" / "catalog.yaml").write_text(
        "kind: entity\nname: user\nkeys: [{name: user_id}]\n"
    )
    catalog.publish()
    assert refused(write(tmp_path / "shop", options="codec: text\n")).path == "codec"
    with pytest.raises(CatalogError, match="stored rows would be read for other ids"):
        write(tmp_path / "shop", keys="[{name: genre, dtype: int32}, {name: user_id}]").publish()


def test_a_change_is_refused_like_the_same_edit_of_files(tmp_path: Path) -> None:
    catalog = write(tmp_path / "shop")
    catalog.publish()
    entity = {
        "kind": "entity",
        "name": "user_genre",
        "keys": [{"name": "genre", "dtype": "int32"}, {"name": "user_id"}],
    }
    with pytest.raises(CatalogError, match="stored rows would be read for other ids"):
        catalog.publish_change(Change({"object": entity}), None)


def test_a_catalog_without_records_gets_them_from_its_live_revision(tmp_path: Path) -> None:
    """The revision is as early versions of Kirana wrote it, and the source has changed since."""
    record = published_before_records(tmp_path / "shop")
    assert refused(write(tmp_path / "shop", options="codec: text\n")).path == "codec"
    write(tmp_path / "shop").publish()
    assert record.is_file()


def published_before_records(folder: Path, **edits: str) -> Path:
    """Publish a catalog as early versions of Kirana did, without a storage record.

    `edits` replaces texts in the published revision. Return the path of the missing record.
    """
    write(folder).publish()
    (record,) = (folder / "versions" / "user_genre").iterdir()
    record.unlink()
    file = folder / ".kirana" / "revisions" / "1" / "catalog.json"
    content = json.loads(file.read_text())
    del content["storage"]
    text = json.dumps(content)
    for old, new in edits.items():
        assert old in text
        text = text.replace(old, new)
    file.write_text(text)
    return record


def test_an_entity_deleted_from_a_catalog_without_records_gets_a_record(tmp_path: Path) -> None:
    record = published_before_records(tmp_path / "shop")
    (tmp_path / "shop" / "catalog.yaml").write_text(
        "kind: entity\nname: user\nkeys: [{name: user_id}]\n"
    )
    DirectoryCatalog(tmp_path / "shop", catalog_checks()).publish()
    assert record.is_file()
    assert refused(write(tmp_path / "shop", options="codec: text\n")).path == "codec"


def test_a_changed_codec_is_refused_even_if_the_live_revision_is_no_longer_valid(
    tmp_path: Path,
) -> None:
    """The revision was published when a TTL of 0 was still allowed."""
    published_before_records(tmp_path / "shop", **{'"ttl": null': '"ttl": "0ms"'})
    catalog = DirectoryCatalog(tmp_path / "shop", catalog_checks())
    with pytest.raises(CatalogError):
        catalog.load(catalog.current())
    assert refused(write(tmp_path / "shop", options="codec: text\n")).path == "codec"


@pytest.mark.parametrize("edit", ["genre", "packed", None])
def test_an_edited_or_missing_record_is_refused(tmp_path: Path, edit: str | None) -> None:
    catalog = write(tmp_path / "shop")
    catalog.publish()
    (record,) = (tmp_path / "shop" / "versions" / "user_genre").iterdir()
    if edit is None:
        record.unlink()
    else:
        record.write_text(record.read_text().replace(edit, "other"))
    with pytest.raises(CatalogError, match="restore it from version control") as caught:
        catalog.publish()
    assert caught.value.problems[0].file == str(record)


def test_a_revision_holds_the_storage_records_of_its_entities(tmp_path: Path) -> None:
    catalog = write(tmp_path / "shop")
    catalog.publish()
    (record,) = catalog.load(catalog.current()).storage["user_genre"]
    assert record.keys == (Key("user_id"), Key("genre", "int32"))
    assert (record.groups["affinity"].codec, record.groups["affinity"].checksum) == (
        "packed",
        "none",
    )
