"""YAML files with their lines: every value knows where it was written."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from kirana.catalog.objects import KINDS, CatalogObject
from kirana.errors import CatalogError, Problem, did_you_mean

Steps = tuple[str | int, ...]

MAX_DEPTH = 32
MAX_VALUES = 100_000


def path_text(steps: Steps) -> str:
    """Spell a path like `nodes.similar.with` or `features[2].dtype`."""
    text = ""
    for step in steps:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else str(step)
    return text


@dataclass(frozen=True, slots=True)
class Document:
    """One object as it stands in a file. `lines` maps the path of each value to its line."""

    file: str
    data: Any
    lines: dict[str, int] = field(repr=False)

    def problem(self, message: str, path: str = "") -> Problem:
        """Return a problem at `path`, with the line of the nearest value that has one."""
        at = path
        while at and at not in self.lines:
            at = at[: max(at.rfind("."), at.rfind("["), 0)]
        return Problem(message, self.file, self.lines.get(at, self.lines.get("", 0)), path)


class _BadNode(Exception):
    def __init__(self, message: str, node: yaml.Node) -> None:
        super().__init__(message)
        self.message, self.line = message, node.start_mark.line + 1


def read_documents(folder: Path) -> Iterator[Document]:
    """Yield every document of the `*.yaml` files of a folder, in order of file and line.

    Raises `CatalogError` for a folder without any, and for text that is not YAML.
    """
    if not folder.is_dir():
        raise CatalogError([Problem("there is no such folder", str(folder))])
    files = sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")])
    if not files:
        raise CatalogError([Problem("the folder has no *.yaml file", str(folder))])
    for file in files:
        yield from _documents_of(file)


def _documents_of(file: Path) -> Iterator[Document]:
    try:
        loader = yaml.SafeLoader(file.read_bytes())
        while loader.check_node():
            node = loader.get_node()
            assert node is not None
            lines: dict[str, int] = {}
            yield Document(str(file), _build(loader, node, (), lines), lines)
    except _BadNode as error:
        raise CatalogError([Problem(error.message, str(file), error.line)]) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = mark.line + 1 if mark else 0
        reason = f"this is not YAML: {error.problem or error.context}"
        raise CatalogError([Problem(reason, str(file), line)]) from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, OSError) as error:
        raise CatalogError([Problem(f"this is not YAML: {error}", str(file))]) from None


def _build(loader: Any, node: yaml.Node, steps: Steps, lines: dict[str, int]) -> Any:
    if len(steps) > MAX_DEPTH or len(lines) > MAX_VALUES:
        raise _BadNode("this is too deep, too large, or inside itself", node)
    lines[path_text(steps)] = node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        mapping: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise _BadNode("a key must be a name, this is a list or a mapping", key_node)
            if key_node.value == "<<":
                raise _BadNode("'<<' is not read here: write out what it would merge", key_node)
            key = _scalar(loader, key_node)
            if key in mapping:
                raise _BadNode(f"the key '{key}' stands here twice", key_node)
            mapping[key] = _build(loader, value_node, (*steps, str(key)), lines)
            lines[path_text((*steps, str(key)))] = key_node.start_mark.line + 1
        return mapping
    if isinstance(node, yaml.SequenceNode):
        return [_build(loader, each, (*steps, at), lines) for at, each in enumerate(node.value)]
    return _scalar(loader, node)


def _scalar(loader: Any, node: yaml.Node) -> Any:
    try:
        return loader.construct_object(node, deep=True)
    except ValueError as error:
        raise _BadNode(f"this is no value: {error}", node) from None


def parse_object(document: Document) -> CatalogObject:
    """Turn a document into an object of its kind. Raises `CatalogError` with all that is wrong."""
    data = document.data
    if not isinstance(data, dict):
        raise CatalogError([document.problem("an object is a mapping with 'kind' and 'name'")])
    kind = data.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        message = (
            "'kind' is missing: " + did_you_mean("", KINDS)
            if kind is None
            else f"unknown kind '{kind}': {did_you_mean(str(kind), KINDS)}"
        )
        raise CatalogError([document.problem(message, "kind")])
    try:
        return KINDS[kind].model_validate(data)
    except ValidationError as error:
        found = dict.fromkeys(_problems(document, error))
        raise CatalogError(list(found)) from None


def _problems(document: Document, error: ValidationError) -> Iterator[Problem]:
    for each in error.errors(include_url=False):
        steps = _real_steps(document.data, each["loc"])
        message = each["msg"].removeprefix("Value error, ")
        if each["type"] == "unknown_key":
            steps = (*steps, each["ctx"]["key"])
        elif each["type"] == "missing":
            message = f"'{each['loc'][-1]}' is missing"
        elif not isinstance(each["input"], dict | list):
            message = f"{message} (it is {each['input']!r})"
        yield document.problem(message, path_text(steps))


def _real_steps(data: Any, loc: Steps) -> Steps:
    """Keep the steps that are in the data: pydantic adds the tried type of a union."""
    steps: list[str | int] = []
    for each in loc:
        if isinstance(data, dict):
            found = each in data
        else:
            found = isinstance(data, list) and isinstance(each, int) and each < len(data)
        if found:
            data = data[each]
            steps.append(each)
    return tuple(steps)
