"""YAML documents: the objects in them, their line numbers, and the problems that are reported."""

from __future__ import annotations

from pathlib import Path

import pytest

from kirana.catalog.documents import (
    MAX_DOCUMENT_CHARS,
    MAX_FILE_BYTES,
    parse_object,
    path_text,
    read_documents,
)
from kirana.catalog.objects import EntityObject, FeatureGroupObject
from kirana.catalog.sources import parse_documents
from kirana.errors import CatalogError, Problem

GROUP = """\
kind: feature_group
name: product.stats
ttl: 7d
features:
  - {name: clicks, dtype: int32}
  - name: ctr
    dtype: float32
"""


def write(folder: Path, text: str | bytes, name: str = "shop.yaml") -> Path:
    file = folder / name
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


def problems_of(folder: Path) -> tuple[Problem, ...]:
    """Return the problems for which the documents of a folder are refused."""
    with pytest.raises(CatalogError) as caught:
        parse_documents(read_documents(folder))
    return caught.value.problems


def only_problem(folder: Path, text: str | bytes) -> Problem:
    """Write a file that is refused for one problem, and return the problem."""
    file = write(folder, text)
    (problem,) = problems_of(folder)
    assert problem.file == str(file)
    return problem


def test_a_document_becomes_an_object(tmp_path: Path) -> None:
    write(tmp_path, GROUP)
    (document,) = read_documents(tmp_path)
    group = parse_object(document)
    assert isinstance(group, FeatureGroupObject)
    assert (group.name, group.ttl) == ("product.stats", 7 * 86_400_000)
    assert [feature.name for feature in group.features] == ["clicks", "ctr"]


def test_every_value_has_its_line_number(tmp_path: Path) -> None:
    write(tmp_path, GROUP)
    (document,) = read_documents(tmp_path)
    lines = {path: document.lines[path] for path in ("name", "features[0].dtype", "features[1]")}
    assert lines == {"name": 2, "features[0].dtype": 5, "features[1]": 6}
    assert document.lines["features[1].dtype"] == 7


def test_a_missing_path_has_the_line_of_its_nearest_parent(tmp_path: Path) -> None:
    write(tmp_path, GROUP)
    (document,) = read_documents(tmp_path)
    assert document.problem("x", "features[1].shape[0]").line == 6
    assert document.problem("x", "nowhere").line == 1


def test_documents_are_ordered_by_file_and_line(tmp_path: Path) -> None:
    write(tmp_path, "kind: entity\nname: b\n---\nkind: entity\nname: c\n", "2.yaml")
    write(tmp_path, "kind: entity\nname: a\n", "1.yml")
    write(tmp_path, "no catalog at all: [", "notes.txt")
    documents = list(read_documents(tmp_path))
    assert [document.data["name"] for document in documents] == ["a", "b", "c"]
    assert [document.lines["name"] for document in documents] == [2, 2, 5]


def test_empty_documents_are_skipped(tmp_path: Path) -> None:
    write(tmp_path, "---\n---\nkind: entity\nname: a\nkeys: [{name: id}]\n---\n# the end\n")
    (located,) = parse_documents(read_documents(tmp_path))
    assert isinstance(located.object, EntityObject)


def test_an_unknown_key_gets_a_suggestion(tmp_path: Path) -> None:
    problem = only_problem(tmp_path, GROUP.replace("ttl:", "tll:"))
    assert (problem.line, problem.path) == (3, "tll")
    assert "did you mean 'ttl'?" in problem.message


def test_an_unknown_nested_key_has_its_full_path(tmp_path: Path) -> None:
    problem = only_problem(tmp_path, GROUP.replace("    dtype: float32", "    type: float32"))
    assert (problem.line, problem.path) == (7, "features[1].type")
    assert "did you mean 'dtype'?" in problem.message


@pytest.mark.parametrize(
    ("old", "new", "line", "path", "message"),
    [
        ("name: product.stats", "name: 7", 2, "name", "valid string"),
        ("ttl: 7d", "ttl: a week", 3, "ttl", "like 7d"),
        ("ttl: 7d", "ttl: -1", 3, "ttl", "like 7d"),
        ("dtype: float32", "dtype: flaot32", 7, "features[1].dtype", "did you mean 'float32'?"),
        ("int32}", "int32, shape: [0]}", 5, "features[0].shape[0]", "greater than"),
        ("int32}", "int32, shape: 4}", 5, "features[0].shape", "valid list"),
        ("  - name: ctr", "  - nome: ctr", 6, "features[1].nome", "did you mean 'name'?"),
        ("name: product.stats", "name: product", 2, "name", "entity.group"),
        ("name: clicks", "name: click s", 5, "features[0].name", "is not a valid name"),
    ],
)
def test_a_wrong_value_is_reported_with_its_line_and_path(
    tmp_path: Path, old: str, new: str, line: int, path: str, message: str
) -> None:
    problem = only_problem(tmp_path, GROUP.replace(old, new))
    assert (problem.line, problem.path) == (line, path)
    assert message in problem.message


def test_a_missing_key_is_reported_at_the_object_that_lacks_it(tmp_path: Path) -> None:
    problem = only_problem(tmp_path, GROUP.replace("    dtype: float32\n", ""))
    assert (problem.line, problem.path) == (6, "features[1]")
    assert problem.message == "'dtype' is missing"


@pytest.mark.parametrize(
    ("text", "path", "message"),
    [
        ("kind: entitty\nname: a\n", "kind", "did you mean 'entity'?"),
        ("name: a\n", "kind", "'kind' is missing"),
        ("- kind: entity\n", "", "a mapping with 'kind' and 'name'"),
        ("just words\n", "", "a mapping with 'kind' and 'name'"),
        ("kind: [entity]\nname: a\n", "kind", "unknown kind"),
    ],
)
def test_a_document_without_a_known_kind_is_refused(
    tmp_path: Path, text: str, path: str, message: str
) -> None:
    problem = only_problem(tmp_path, text)
    assert (problem.line, problem.path) == (1, path)
    assert message in problem.message


def test_the_problems_of_all_files_are_reported_together(tmp_path: Path) -> None:
    write(tmp_path, GROUP.replace("ttl: 7d", "ttl: soon").replace("dtype: int32", "dtype: int"))
    write(tmp_path, "kind: entity\nname: user\n", "users.yaml")
    places = [(Path(problem.file).name, problem.path) for problem in problems_of(tmp_path)]
    assert places == [("shop.yaml", "ttl"), ("shop.yaml", "features[0].dtype"), ("users.yaml", "")]


def test_a_duplicate_object_names_the_place_of_the_first(tmp_path: Path) -> None:
    write(tmp_path, GROUP)
    second = write(tmp_path, "kind: entity\nname: a\nkeys: [{name: b}]\n---\n" + GROUP, "two.yaml")
    (problem,) = problems_of(tmp_path)
    assert (problem.file, problem.line, problem.path) == (str(second), 6, "name")
    assert "'product.stats' is already defined in " in problem.message
    assert problem.message.endswith("shop.yaml:1")


def test_a_duplicate_key_is_reported_at_its_second_occurrence(tmp_path: Path) -> None:
    problem = only_problem(tmp_path, GROUP + "ttl: 8d\n")
    assert problem.line == 8
    assert "'ttl' is given twice" in problem.message


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("kind: entity\nname: [a\n", 3),
        ("kind: entity\n\tname: a\n", 2),
        ("kind: entity\nname: *nobody\n", 2),
        ("kind: entity\nname: !!python/object:os.system a\n", 2),
    ],
)
def test_invalid_yaml_is_reported_with_its_line(tmp_path: Path, text: str, line: int) -> None:
    problem = only_problem(tmp_path, text)
    assert problem.line == line
    assert problem.message.startswith("this is not YAML: ")


@pytest.mark.parametrize(
    "text",
    [
        b"kind: entity\nname: caf\xe9\n",
        b"kind: entity\nname: a\x00b\n",
        b"\x7fELF\x02\x01\x01",
    ],
    ids=["latin-1", "NUL", "binary"],
)
def test_bytes_that_are_not_text_are_refused(tmp_path: Path, text: bytes) -> None:
    assert "not YAML" in only_problem(tmp_path, text).message


@pytest.mark.parametrize(
    "text",
    [
        "kind: entity\nname: {{ name }}\n",
        "kind: entity\n? [a, b]\n: c\n",
        "kind: entity\nname: 2026-13-45\n",
        "kind: entity\nname: &self [*self]\n",
    ],
    ids=["left-over template", "list as key", "impossible date", "value inside itself"],
)
def test_unsupported_yaml_is_a_problem_with_a_line(tmp_path: Path, text: str) -> None:
    assert only_problem(tmp_path, text).line


def test_a_folder_without_yaml_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "hello", "README.md")
    (problem,) = problems_of(tmp_path)
    assert (problem.file, problem.message) == (str(tmp_path), "the folder has no *.yaml file")


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    (problem,) = problems_of(tmp_path / "nowhere")
    assert "does not exist" in problem.message


def test_paths_are_written_with_dots_and_brackets() -> None:
    assert path_text(("nodes", "similar", "with")) == "nodes.similar.with"
    assert path_text(("features", 2, "dtype")) == "features[2].dtype"
    assert path_text(()) == ""


def test_a_document_that_is_too_long_is_refused_with_its_line(tmp_path: Path) -> None:
    text = f"kind: entity\nname: a\n---\nkind: entity\nname: {'x' * MAX_DOCUMENT_CHARS}\n"
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(CatalogError) as caught:
        list(read_documents(tmp_path))
    (problem,) = caught.value.problems
    assert problem.line == 3
    assert problem.message.endswith(f"characters, the limit is {MAX_DOCUMENT_CHARS}")


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "a.yaml").open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    with pytest.raises(CatalogError, match=f"has {MAX_FILE_BYTES + 1} bytes, the limit is"):
        list(read_documents(tmp_path))


def test_a_message_quotes_only_the_start_of_a_long_value(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(f"kind: entity\nname: p\nkeys: {'x' * 100_000}\n")
    (document,) = read_documents(tmp_path)
    with pytest.raises(CatalogError) as caught:
        parse_object(document)
    assert len(str(caught.value)) < 3_000
    assert "... (100" in str(caught.value)
