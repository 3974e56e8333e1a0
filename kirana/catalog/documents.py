"""YAML files with their lines: every value knows where it was written."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import count, islice
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from kirana.catalog.objects import KINDS, CatalogObject
from kirana.errors import CatalogError, Problem, did_you_mean

Steps = tuple[str | int, ...]

MAX_DEPTH = 32
MAX_VALUES = 100_000
MAX_OPENED = 10_000
"""Brackets and braces of a chunk that the quick loader reads."""

SafeLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""Ten times as quick where PyYAML has libyaml."""

_TEXT = "tag:yaml.org,2002:str"
_DASHES = re.compile(r"^---(?=\s|$)", re.MULTILINE)
_WHOLE = re.compile(r"^(?:%|\.\.\.(?:\s|$))", re.MULTILINE)
_LONE = re.compile(r"\r(?!\n)")
_DEEP = re.compile(r"^[ \t?-]{1000}", re.MULTILINE)


def path_text(steps: Steps) -> str:
    """Spell a path like `nodes.similar.with` or `features[2].dtype`."""
    text = ""
    for step in steps:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else str(step)
    return text


@dataclass(frozen=True, slots=True)
class Chunk:
    """A part of a file that is read by itself: as a rule, one document.

    `start` is where it begins in the text of the file, `line` its first line, from 1.
    """

    file: Path
    text: str
    start: int
    line: int


class Document:
    """One object as it was written: in a file, in which each value has a line, or elsewhere."""

    def __init__(self, file: str, data: Any, chunk: Chunk | None = None, at: int = 0) -> None:
        """`data` was read from the document `at` of a chunk, if it stands in a file."""
        self.file = file
        self.data = data
        self.chunk = chunk
        self._at = at

    @cached_property
    def lines(self) -> dict[str, int]:
        """The line of each value by its path; none of what stands in no file."""
        lines: dict[str, int] = {}
        if self.chunk is not None:
            nodes = yaml.compose_all(self.chunk.text, Loader=SafeLoader)
            node = next(islice(nodes, self._at, None))
            _note_lines(node, (), lines, self.chunk.line)
        return lines

    def problem(self, message: str, path: str = "") -> Problem:
        """Return a problem at `path`, with the line of the nearest value that has one."""
        at = path
        while at and at not in self.lines:
            at = at[: max(at.rfind("."), at.rfind("["), 0)]
        return Problem(message, self.file, self.lines.get(at, self.lines.get("", 0)), path)


def _note_lines(node: yaml.Node, steps: Steps, lines: dict[str, int], first: int) -> None:
    lines.setdefault(path_text(steps), node.start_mark.line + first)
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            inside = (*steps, key.value)
            lines[path_text(inside)] = key.start_mark.line + first
            _note_lines(value, inside, lines, first)
    elif isinstance(node, yaml.SequenceNode):
        for at, each in enumerate(node.value):
            _note_lines(each, (*steps, at), lines, first)


class _BadNode(Exception):
    def __init__(self, message: str, node: yaml.Node) -> None:
        super().__init__(message)
        self.message, self.line = message, node.start_mark.line


def source_files(folder: Path) -> list[Path]:
    """Return the files of a catalog. Raises `CatalogError` for a folder without any."""
    if not folder.is_dir():
        raise CatalogError([Problem("the folder does not exist", str(folder))])
    files = sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")])
    if not files:
        raise CatalogError([Problem("the folder has no *.yaml file", str(folder))])
    return files


def read_text(file: Path) -> str:
    """Raises `CatalogError` for a file that is no text."""
    try:
        return file.read_bytes().decode("utf-8-sig")
    except (UnicodeDecodeError, OSError) as error:
        raise CatalogError([Problem(f"this is not YAML: {error}", str(file))]) from None


def may_hold_several(text: str) -> bool:
    """Whether a chunk may be more than one document: YAML knows more ends of lines than we do."""
    # most texts have none of these characters, and that is seen much faster than an expression
    return (
        any(end in text for end in "\x85\u2028\u2029")
        or ("\r" in text and _LONE.search(text) is not None)
        or (("%" in text or "..." in text) and _WHOLE.search(text) is not None)
    )


def chunks_of(file: Path, text: str) -> list[Chunk]:
    """Split a text before each line of dashes, which ends whatever stands before it."""
    if _WHOLE.search(text):
        # directives are for what follows them
        return [Chunk(file, text, 0, 1)]
    starts = [0, *(each.start() for each in _DASHES.finditer(text) if each.start())]
    chunks, line = [], 1
    for start, stop in zip(starts, [*starts[1:], len(text)], strict=True):
        part = text[start:stop]
        chunks.append(Chunk(file, part, start, line))
        line += part.count("\n")
    return chunks


def read_documents(folder: Path) -> Iterator[Document]:
    """Yield every document of the `*.yaml` files of a folder, in order of file and line.

    Raises `CatalogError` for a folder without any, and for text that is not YAML.
    """
    for file in source_files(folder):
        for chunk in chunks_of(file, read_text(file)):
            yield from documents_of(chunk)


def documents_of(chunk: Chunk) -> Iterator[Document]:
    """Read a chunk. Raises `CatalogError` for text that is not YAML."""
    file, before = str(chunk.file), chunk.line
    try:
        loader = _loader_of(chunk.text)(chunk.text)
        try:
            for at in count():
                if not loader.check_node():
                    break
                node = loader.get_node()
                yield Document(file, _Builder(loader).build(node, 0), chunk, at)
        finally:
            loader.dispose()
    except _BadNode as error:
        raise CatalogError([Problem(error.message, file, error.line + before)]) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = mark.line + before if mark else 0
        reason = f"this is not YAML: {error.problem or error.context}"
        raise CatalogError([Problem(reason, file, line)]) from None
    except (yaml.YAMLError, RecursionError) as error:
        raise CatalogError([Problem(f"this is not YAML: {error}", file)]) from None


def _loader_of(text: str) -> Any:
    """Return the quick loader, if nothing can be nested so deep that its stack would not do."""
    opened = text.count("[") + text.count("{")
    return yaml.SafeLoader if opened > MAX_OPENED or _DEEP.search(text) else SafeLoader


class _Builder:
    """Builds the values of one document, and refuses what a catalog does not read."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader
        self._values = 0

    def build(self, node: yaml.Node, depth: int) -> Any:
        self._values += 1
        if depth > MAX_DEPTH or self._values > MAX_VALUES:
            raise _BadNode("this is too deep, too large, or inside itself", node)
        if isinstance(node, yaml.MappingNode):
            mapping: dict[Any, Any] = {}
            for key_node, value_node in node.value:
                if not isinstance(key_node, yaml.ScalarNode):
                    raise _BadNode("a key must be a name, this is a list or a mapping", key_node)
                if key_node.value == "<<":
                    raise _BadNode("'<<' is not read here: write out what it would merge", key_node)
                key = self._scalar(key_node)
                if key in mapping:
                    raise _BadNode(f"the key '{key}' is given twice", key_node)
                mapping[key] = self.build(value_node, depth + 1)
            return mapping
        if isinstance(node, yaml.SequenceNode):
            return [self.build(each, depth + 1) for each in node.value]
        return self._scalar(node)

    def _scalar(self, node: yaml.Node) -> Any:
        if node.tag == _TEXT:
            return node.value
        try:
            return self._loader.construct_object(node, deep=True)
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
