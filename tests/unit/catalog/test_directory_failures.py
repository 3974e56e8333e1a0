"""What a publish that failed, or another environment, leaves behind is never taken for live."""

from __future__ import annotations

from pathlib import Path

import pytest

from kirana.catalog import directory
from kirana.catalog.changes import Change
from kirana.catalog.directory import DirectoryCatalog
from kirana.catalog.snapshot import Catalog
from kirana.errors import CatalogError, Conflict

ENTITY = "kind: entity\nname: user\nkeys:\n- name: user_id\n"


def event(name: str) -> str:
    return f"kind: event_type\nname: {name}\n"


def group(*features: str) -> str:
    lines = "".join(f"- {{name: {each}, dtype: float32}}\n" for each in features)
    return f"kind: feature_group\nname: user.s\nfeatures:\n{lines}"


def put(name: str) -> Change:
    return Change({"put[0]": {"kind": "event_type", "name": name}})


def events(catalog: Catalog) -> list[str]:
    return sorted(catalog.event_types)


def versions(catalog: Catalog) -> list[list[str]]:
    return [[feature.name for feature in each.features] for each in catalog.versions["user.s"]]


def files_of_versions(folder: Path) -> dict[str, str]:
    return {each.name: each.read_text() for each in (folder / "versions/user.s").iterdir()}


def publish_in(folder: Path, *features: str) -> None:
    (folder / "group.yaml").write_text(group(*features))
    DirectoryCatalog(folder).publish()


def fail_half_way(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Publish, over HTTP, an object that is written down and never becomes live."""

    def refuse(file: Path, content: bytes) -> None:
        raise PermissionError(13, "denied")

    with monkeypatch.context() as patch:
        patch.setattr(directory, "write_durably", refuse)
        with pytest.raises(PermissionError):
            DirectoryCatalog(folder).publish_change(put("ghost"), None)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a catalog with a group whose files have versions that are not published here."""
    folder, other = tmp_path / "here", tmp_path / "other"
    for each in (folder, other):
        each.mkdir()
        (each / "entity.yaml").write_text(ENTITY)
        (each / "view.yaml").write_text(event("view"))
        publish_in(each, "a")
    publish_in(other, "a", "b")
    publish_in(other, "a")
    for name, text in files_of_versions(other).items():
        (folder / "versions/user.s" / name).write_text(text)
    return folder


def test_a_revision_that_failed_half_way_is_not_followed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = DirectoryCatalog(folder)
    reader.load(reader.current())
    fail_half_way(folder, monkeypatch)
    live = DirectoryCatalog(folder).publish_change(put("real"), None).revision
    assert events(reader.load(live)) == ["real", "view"]
    assert events(DirectoryCatalog(folder).load(live)) == ["real", "view"]


def test_a_revision_that_failed_half_way_is_not_in_the_history(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_half_way(folder, monkeypatch)
    catalog = DirectoryCatalog(folder)
    live = catalog.publish_change(put("real"), None).revision.number
    assert [each.revision for each in catalog.history(10)] == [live, 1]


def test_a_chain_of_changes_from_another_revision_is_not_followed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = DirectoryCatalog(folder)
    reader.load(reader.current())
    # the revision that the reader has is another one now, of the same number
    revision = folder / ".kirana/revisions/1/catalog.json"
    revision.write_bytes(revision.read_bytes() + b" ")
    live = DirectoryCatalog(folder).publish_change(put("cart"), None).revision
    calls: list[int] = []
    monkeypatch.setattr(reader, "_changed", lambda *_: calls.append(1))
    assert events(reader.load(live)) == ["cart", "view"]
    assert calls == []


def test_versions_that_others_have_appended_reach_replicas_that_follow(folder: Path) -> None:
    reader = DirectoryCatalog(folder)
    reader.load(reader.current())
    for uses in folder.glob(".kirana/revisions/*/uses.json"):
        uses.unlink()
    (folder / "cart.yaml").write_text(event("cart"))
    live = DirectoryCatalog(folder).publish().revision
    assert versions(reader.load(live)) == [["a"], ["a", "b"], ["a"]]
    assert reader.load(live).groups["user.s"].current.number == 3
    after = reader.publish_change(put("order"), None).revision
    assert versions(DirectoryCatalog(folder).load(after)) == [["a"], ["a", "b"], ["a"]]


def test_versions_that_others_have_appended_are_never_overwritten(folder: Path) -> None:
    before = files_of_versions(folder)
    (folder / "cart.yaml").write_text(event("cart"))
    DirectoryCatalog(folder).publish()
    publish_in(folder, "a", "c")
    after = files_of_versions(folder)
    assert before == {name: after[name] for name in before}
    assert sorted(after) == ["1.yaml", "2.yaml", "3.yaml", "4.yaml"]


def test_a_version_that_is_there_already_is_not_written(folder: Path) -> None:
    catalog = DirectoryCatalog(folder)
    checked = catalog.check()
    number = len(checked.catalog.versions["user.s"])
    (folder / "group.yaml").write_text(group("a", "d"))
    added = catalog.check().added
    (folder / f"versions/user.s/{number + 1}.yaml").write_text("fingerprint: '0'\nfeatures: []\n")
    with pytest.raises(CatalogError, match="was written meanwhile"):
        catalog._records.append(added)


@pytest.mark.parametrize("between", ["...\n---\n", "\x85---\n", "\u2028---\n", "\r---\n"])
def test_each_document_of_a_text_stays_when_the_text_is_not_read_again(
    tmp_path: Path, between: str
) -> None:
    text = f"{ENTITY.rstrip()}{between if between[0] != '.' else chr(10) + between}"
    text += '"kind": event_type\n"name": click\n'
    (tmp_path / "all.yaml").write_text(text, newline="")
    assert events(DirectoryCatalog(tmp_path).publish().checked.catalog) == ["click"]
    (tmp_path / "view.yaml").write_text(event("view"))
    published = DirectoryCatalog(tmp_path).publish().checked
    assert events(published.catalog) == ["click", "view"]
    assert published.changed == {("event_type", "view")}


def test_a_file_that_is_saved_while_it_is_rewritten_is_left_alone(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog, edited = DirectoryCatalog(folder), event("view") + "keep: 3\n"

    def rewrite_late(*args: object) -> dict[Path, bytes | None]:
        files = rewrite(*args)  # type: ignore[arg-type]
        (folder / "view.yaml").write_text(edited)
        return files

    rewrite = directory.rewrite
    monkeypatch.setattr(directory, "rewrite", rewrite_late)
    change = Change({"put[0]": {"kind": "event_type", "name": "view", "keep": 7}})
    with pytest.raises(Conflict, match=r"view\.yaml changed while it was read"):
        catalog.publish_change(change, None)
    assert (folder / "view.yaml").read_text() == edited
    assert catalog.current().number == 1
