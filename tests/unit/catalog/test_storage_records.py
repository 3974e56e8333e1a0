"""What gives stored bytes another meaning is refused, also after a delete and a new creation."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kirana.catalog.changes import Change
from kirana.catalog.directory import DirectoryCatalog
from kirana.errors import CatalogError, Problem
from kirana.schema import Key
from kirana.serving.checks import checks_of

KEYS = "[{name: user_id}, {name: genre, dtype: int32}]"


def write(folder: Path, *, keys: str = KEYS, options: str = "") -> DirectoryCatalog:
    folder.mkdir(exist_ok=True)
    (folder / "catalog.yaml").write_text(
        f"kind: entity\nname: user_genre\nkeys: {keys}\n---\n"
        f"kind: feature_group\nname: user_genre.affinity\n{options}"
        "features: [{name: clicks, dtype: int32}]\n"
    )
    return DirectoryCatalog(folder, checks_of())


def refused(catalog: DirectoryCatalog) -> Problem:
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
    "one key more": ("[{name: user_id}, {name: genre, dtype: int32}, {name: x}]", "had 2 keys"),
    "one key less": ("[{name: user_id}]", "had 2 keys"),
    "a key that moved": ("[{name: genre}, {name: rank, dtype: int32}]", "was key 2"),
    "text for numbers": ("[{name: user_id}, {name: genre}]", "was int32"),
    "numbers for text": ("[{name: user_id, dtype: int64}, {name: genre, dtype: int32}]", "string"),
}


@pytest.mark.parametrize(("keys", "reason"), OTHER_KEYS.values(), ids=OTHER_KEYS)
def test_keys_that_would_read_other_rows_are_refused(
    tmp_path: Path, keys: str, reason: str
) -> None:
    write(tmp_path / "shop").publish()
    live = DirectoryCatalog(tmp_path / "shop", checks_of()).current()
    with pytest.raises(CatalogError) as caught:
        write(tmp_path / "shop", keys=keys).publish()
    assert reason in caught.value.message
    assert "another entity" in caught.value.message
    assert all(each.path.startswith("keys") for each in caught.value.problems)
    assert DirectoryCatalog(tmp_path / "shop", checks_of()).current() == live


def test_a_number_narrower_than_before_is_refused(tmp_path: Path) -> None:
    wide = KEYS.replace("int32", "int64")
    write(tmp_path / "shop").publish()
    assert write(tmp_path / "shop", keys=wide).publish().revision.number == 2
    assert refused(write(tmp_path / "shop")).path == "keys[1].dtype"


def test_a_key_may_have_a_new_name_at_its_place_but_no_name_of_another_place(
    tmp_path: Path,
) -> None:
    write(tmp_path / "shop").publish()
    renamed = write(tmp_path / "shop", keys=KEYS.replace("user_id", "person"))
    published = renamed.publish()
    assert [record.number for record in published.checked.added.storage] == [2]
    swapped = "[{name: genre}, {name: kind, dtype: int32}]"
    assert refused(write(tmp_path / "shop", keys=swapped)).path == "keys[0].name"


def test_another_codec_is_refused_and_another_checksum_is_not(tmp_path: Path) -> None:
    write(tmp_path / "shop").publish()
    assert write(tmp_path / "shop", options="checksum: crc32\n").publish().changed
    problem = refused(write(tmp_path / "shop", options="codec: text\n"))
    assert problem.path == "codec"
    assert "give the group another name" in problem.message


def test_what_was_deleted_is_remembered(tmp_path: Path) -> None:
    catalog = write(tmp_path / "shop")
    catalog.publish()
    (tmp_path / "shop" / "catalog.yaml").write_text(
        "kind: entity\nname: user\nkeys: [{name: user_id}]\n"
    )
    catalog.publish()
    assert refused(write(tmp_path / "shop", options="codec: text\n")).path == "codec"
    with pytest.raises(CatalogError, match="stored rows would be read for other ids"):
        write(tmp_path / "shop", keys="[{name: genre, dtype: int32}, {name: user_id}]").publish()


def test_a_change_over_http_is_refused_as_the_files_are(tmp_path: Path) -> None:
    catalog = write(tmp_path / "shop")
    catalog.publish()
    entity = {
        "kind": "entity",
        "name": "user_genre",
        "keys": [{"name": "genre", "dtype": "int32"}, {"name": "user_id"}],
    }
    with pytest.raises(CatalogError, match="stored rows would be read for other ids"):
        catalog.publish_change(Change({"object": entity}), None)


def test_the_live_revision_is_the_first_record_of_a_catalog_that_has_none(tmp_path: Path) -> None:
    """It was published before there were records; the source has changed since."""
    record = published_before_records(tmp_path / "shop")
    assert refused(write(tmp_path / "shop", options="codec: text\n")).path == "codec"
    write(tmp_path / "shop").publish()
    assert record.is_file()


def published_before_records(folder: Path, **edits: str) -> Path:
    """Publish as it was done before there were records; return where the first would be.

    `edits` replace text of the published revision.
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


def test_what_an_old_catalog_leaves_out_is_remembered_too(tmp_path: Path) -> None:
    record = published_before_records(tmp_path / "shop")
    (tmp_path / "shop" / "catalog.yaml").write_text(
        "kind: entity\nname: user\nkeys: [{name: user_id}]\n"
    )
    DirectoryCatalog(tmp_path / "shop", checks_of()).publish()
    assert record.is_file()
    assert refused(write(tmp_path / "shop", options="codec: text\n")).path == "codec"


def test_a_live_revision_that_can_not_be_loaded_any_more_has_a_record_too(tmp_path: Path) -> None:
    """It was published by rules that are stricter now: a TTL of 0 meant never."""
    published_before_records(tmp_path / "shop", **{'"ttl": null': '"ttl": "0ms"'})
    catalog = DirectoryCatalog(tmp_path / "shop", checks_of())
    with pytest.raises(CatalogError):
        catalog.load(catalog.current())
    assert refused(write(tmp_path / "shop", options="codec: text\n")).path == "codec"


@pytest.mark.parametrize("edit", ["genre", "packed", None])
def test_a_record_that_was_edited_or_lost_is_refused(tmp_path: Path, edit: str | None) -> None:
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


def test_a_revision_knows_what_its_rows_were_stored_by(tmp_path: Path) -> None:
    catalog = write(tmp_path / "shop")
    catalog.publish()
    (record,) = catalog.load(catalog.current()).storage["user_genre"]
    assert record.keys == (Key("user_id"), Key("genre", "int32"))
    assert (record.groups["affinity"].codec, record.groups["affinity"].checksum) == (
        "packed",
        "none",
    )
