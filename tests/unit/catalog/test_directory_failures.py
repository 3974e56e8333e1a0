"""Files that a failed publish left in a catalog, and version files of other environments."""

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
    lines = "".join(f"- {{name: {feature}, dtype: float32}}\n" for feature in features)
    return f"kind: feature_group\nname: user.s\nfeatures:\n{lines}"


def put(name: str) -> Change:
    return Change({"put[0]": {"kind": "event_type", "name": name}})


def events(catalog: Catalog) -> list[str]:
    return sorted(catalog.event_types)


def versions(catalog: Catalog) -> list[list[str]]:
    """Return the feature names of each schema version of `user.s`."""
    return [
        [feature.name for feature in version.features] for version in catalog.versions["user.s"]
    ]


def files_of_versions(folder: Path) -> dict[str, str]:
    """Return the version files of `user.s` by name."""
    return {file.name: file.read_text() for file in (folder / "versions/user.s").iterdir()}


def publish_in(folder: Path, *features: str) -> None:
    """Publish a folder with these features of `user.s`."""
    (folder / "group.yaml").write_text(group(*features))
    DirectoryCatalog(folder).publish()


def fail_half_way(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail a change after its revision is written and before it becomes live."""

    def refuse(file: Path, content: bytes) -> None:
        raise PermissionError(13, "denied")

    with monkeypatch.context() as patch:
        patch.setattr(directory, "write_durably", refuse)
        with pytest.raises(PermissionError):
            DirectoryCatalog(folder).publish_change(put("ghost"), None)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a published catalog to which two version files of another environment were copied."""
    folder, other = tmp_path / "here", tmp_path / "other"
    for environment in (folder, other):
        environment.mkdir()
        (environment / "entity.yaml").write_text(ENTITY)
        (environment / "view.yaml").write_text(event("view"))
        publish_in(environment, "a")
    publish_in(other, "a", "b")
    publish_in(other, "a")
    for name, text in files_of_versions(other).items():
        (folder / "versions/user.s" / name).write_text(text)
    return folder


def test_the_revision_of_a_failed_publish_is_not_followed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = DirectoryCatalog(folder)
    reader.load(reader.current())
    fail_half_way(folder, monkeypatch)
    live = DirectoryCatalog(folder).publish_change(put("real"), None).revision
    assert events(reader.load(live)) == ["real", "view"]
    assert events(DirectoryCatalog(folder).load(live)) == ["real", "view"]


def test_the_revision_of_a_failed_publish_is_not_in_the_history(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_half_way(folder, monkeypatch)
    catalog = DirectoryCatalog(folder)
    live = catalog.publish_change(put("real"), None).revision.number
    assert [record.revision for record in catalog.history(10)] == [live, 1]


def test_changes_based_on_another_revision_are_not_applied(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = DirectoryCatalog(folder)
    reader.load(reader.current())
    # Revision 1 now differs from the revision 1 that the reader has loaded.
    revision = folder / ".kirana/revisions/1/catalog.json"
    revision.write_bytes(revision.read_bytes() + b" ")
    live = DirectoryCatalog(folder).publish_change(put("cart"), None).revision
    calls: list[int] = []
    monkeypatch.setattr(reader, "_with_delta", lambda *_: calls.append(1))
    assert events(reader.load(live)) == ["cart", "view"]
    assert calls == []


def test_version_files_of_another_environment_reach_following_replicas(folder: Path) -> None:
    reader = DirectoryCatalog(folder)
    reader.load(reader.current())
    # Without these caches, the publish parses and checks all objects.
    for uses in folder.glob(".kirana/revisions/*/uses.json"):
        uses.unlink()
    (folder / "cart.yaml").write_text(event("cart"))
    live = DirectoryCatalog(folder).publish().revision
    assert versions(reader.load(live)) == [["a"], ["a", "b"], ["a"]]
    assert reader.load(live).groups["user.s"].current.number == 3
    after = reader.publish_change(put("order"), None).revision
    assert versions(DirectoryCatalog(folder).load(after)) == [["a"], ["a", "b"], ["a"]]


def test_version_files_of_another_environment_are_never_overwritten(folder: Path) -> None:
    before = files_of_versions(folder)
    (folder / "cart.yaml").write_text(event("cart"))
    DirectoryCatalog(folder).publish()
    publish_in(folder, "a", "c")
    after = files_of_versions(folder)
    assert before == {name: after[name] for name in before}
    assert sorted(after) == ["1.yaml", "2.yaml", "3.yaml", "4.yaml"]


def test_an_existing_version_file_is_not_overwritten(folder: Path) -> None:
    catalog = DirectoryCatalog(folder)
    checked = catalog.check()
    number = len(checked.catalog.versions["user.s"])
    (folder / "group.yaml").write_text(group("a", "d"))
    added = catalog.check().added
    (folder / f"versions/user.s/{number + 1}.yaml").write_text("fingerprint: '0'\nfeatures: []\n")
    with pytest.raises(CatalogError, match="was written in the meantime"):
        catalog._records.append(added)


@pytest.mark.parametrize("separator", ["...\n---\n", "\x85---\n", "\u2028---\n", "\r---\n"])
def test_an_unchanged_file_keeps_all_its_documents(tmp_path: Path, separator: str) -> None:
    text = f"{ENTITY.rstrip()}{separator if separator[0] != '.' else chr(10) + separator}"
    text += '"kind": event_type\n"name": click\n'
    (tmp_path / "all.yaml").write_text(text, newline="")
    assert events(DirectoryCatalog(tmp_path).publish().checked.catalog) == ["click"]
    (tmp_path / "view.yaml").write_text(event("view"))
    published = DirectoryCatalog(tmp_path).publish().checked
    assert events(published.catalog) == ["click", "view"]
    assert published.changed == {("event_type", "view")}


def test_a_file_saved_during_a_rewrite_is_left_alone(
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
    with pytest.raises(Conflict, match=r"view\.yaml changed while it was being rewritten"):
        catalog.publish_change(change, None)
    assert (folder / "view.yaml").read_text() == edited
    assert catalog.current().number == 1
