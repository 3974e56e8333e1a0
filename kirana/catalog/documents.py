"""Parse the YAML files of a catalog, and find the lines of values for messages."""

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
from kirana.errors import CatalogError, Problem, did_you_mean, shortened

Steps = tuple[str | int, ...]
"""The path to a value in an object: keys of mappings, and indexes of lists."""

MAX_DEPTH = 32
"""The most levels of mappings and lists in a document."""

MAX_VALUES = 100_000
"""The most values in a document, mappings and lists included."""

MAX_DOCUMENT_CHARS = 1 << 20
"""The most characters of a document. In a file with `%` or `...` lines, the most of the file."""

MAX_FILE_BYTES = 64 << 20
"""The largest size of a file of documents."""

MAX_OPENED = 10_000
"""The most brackets and braces in a chunk that libyaml loads. Deep nesting overflows its stack."""

SafeLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""The loader of libyaml if PyYAML has it, else the slower one in Python."""

_TEXT = "tag:yaml.org,2002:str"
_SEPARATOR = re.compile(r"^---(?=\s|$)", re.MULTILINE)
_DIRECTIVE_OR_END = re.compile(r"^(?:%|\.\.\.(?:\s|$))", re.MULTILINE)
_LONE_CR = re.compile(r"\r(?!\n)")
_DEEP_LINE = re.compile(r"^[ \t?-]{1000}", re.MULTILINE)
"""A line with 1,000 spaces or indicators at its start, which may nest deeply without brackets."""


def path_text(steps: Steps) -> str:
    """Return a path as text, for example `nodes.similar.with` or `features[2].dtype`."""
    text = ""
    for step in steps:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else str(step)
    return text


@dataclass(frozen=True, slots=True)
class Chunk:
    """A section of a file that is parsed separately. Usually it holds one document.

    `start` is its position in the text of the file. `line` is the number of its first line, from 1.
    """

    file: Path
    text: str
    start: int
    line: int


class Document:
    """The data of one object, as written in a file or sent in a request.

    `file` names the place in messages. For data from a file, `chunk` is the chunk that holds the
    document, and `index` is the index of the document in the chunk.
    """

    def __init__(self, file: str, data: Any, chunk: Chunk | None = None, index: int = 0) -> None:
        self.file = file
        self.data = data
        self.chunk = chunk
        self._index = index

    @cached_property
    def lines(self) -> dict[str, int]:
        """The line numbers of all values by path. Data that is not from a file has none."""
        lines: dict[str, int] = {}
        if self.chunk is not None:
            nodes = yaml.compose_all(self.chunk.text, Loader=SafeLoader)
            node = next(islice(nodes, self._index, None))
            _add_lines(node, (), lines, self.chunk.line)
        return lines

    def problem(self, message: str, path: str = "") -> Problem:
        """Return a problem at `path`, with the line of the value or of its nearest parent.

        The line of data that is not from a file is 0.
        """
        line_path = path
        while line_path and line_path not in self.lines:
            line_path = line_path[: max(line_path.rfind("."), line_path.rfind("["), 0)]
        return Problem(message, self.file, self.lines.get(line_path, self.lines.get("", 0)), path)


def _add_lines(node: yaml.Node, steps: Steps, lines: dict[str, int], first_line: int) -> None:
    """Add the line numbers of a node and of all nodes inside it to `lines`.

    `first_line` is the number of the chunk's first line.
    """
    lines.setdefault(path_text(steps), node.start_mark.line + first_line)
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            inner_steps = (*steps, key.value)
            lines[path_text(inner_steps)] = key.start_mark.line + first_line
            _add_lines(value, inner_steps, lines, first_line)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            _add_lines(item, (*steps, index), lines, first_line)


class _BadNode(Exception):
    """Valid YAML that a catalog does not support."""

    def __init__(self, message: str, node: yaml.Node) -> None:
        super().__init__(message)
        self.message, self.line = message, node.start_mark.line


def source_files(folder: Path) -> list[Path]:
    """Return the `*.yaml` and `*.yml` files of a folder, sorted.

    Raise `CatalogError` if there is none, or if the folder does not exist.
    """
    if not folder.is_dir():
        raise CatalogError([Problem("the folder does not exist", str(folder))])
    files = sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")])
    if not files:
        raise CatalogError([Problem("the folder has no *.yaml file", str(folder))])
    return files


def read_text(file: Path) -> str:
    """Return the text of a file.

    Raise `CatalogError` if it has more than `MAX_FILE_BYTES`, or can't be read as UTF-8.
    """
    try:
        size = file.stat().st_size
        if size > MAX_FILE_BYTES:
            message = f"the file has {size} bytes, the limit is {MAX_FILE_BYTES}"
            raise CatalogError([Problem(message, str(file))])
        return file.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise CatalogError([Problem(f"the file can't be read: {error}", str(file))]) from None
    except UnicodeDecodeError as error:
        raise CatalogError([Problem(f"this is not YAML: {error}", str(file))]) from None


def may_hold_several(text: str) -> bool:
    """Return whether a chunk may hold several documents, which `chunks_of` did not separate."""
    # YAML also ends lines at these characters, and at a lone "\r". `_SEPARATOR` does not, so it
    # misses a `---` after one. Searching for characters first is faster than running the patterns.
    return (
        any(line_end in text for line_end in "\x85\u2028\u2029")
        or ("\r" in text and _LONE_CR.search(text) is not None)
        or (("%" in text or "..." in text) and _DIRECTIVE_OR_END.search(text) is not None)
    )


def chunks_of(file: Path, text: str) -> list[Chunk]:
    """Split the text of a file before each `---` line, so that a chunk is usually one document."""
    if _DIRECTIVE_OR_END.search(text):
        # A directive (`%`) or the end of a document (`...`) affects the text that follows it.
        return [Chunk(file, text, 0, 1)]
    starts = [0, *(match.start() for match in _SEPARATOR.finditer(text) if match.start())]
    chunks, line = [], 1
    for start, stop in zip(starts, [*starts[1:], len(text)], strict=True):
        chunk_text = text[start:stop]
        chunks.append(Chunk(file, chunk_text, start, line))
        line += chunk_text.count("\n")
    return chunks


def read_documents(folder: Path) -> Iterator[Document]:
    """Yield the documents in the YAML files of a folder, in order of file and line.

    Raise `CatalogError` if the folder has no YAML file, or if a file can't be read, is not valid
    YAML, or contains YAML that catalogs do not support.
    """
    for file in source_files(folder):
        for chunk in chunks_of(file, read_text(file)):
            yield from documents_of(chunk)


def documents_of(chunk: Chunk) -> Iterator[Document]:
    """Yield the documents in a chunk.

    Raise `CatalogError` if its text is longer than `MAX_DOCUMENT_CHARS`, is not valid YAML, or
    contains YAML that catalogs do not support.
    """
    file, first_line = str(chunk.file), chunk.line
    if len(chunk.text) > MAX_DOCUMENT_CHARS:
        message = (
            f"the document has {len(chunk.text)} characters, the limit is {MAX_DOCUMENT_CHARS}"
        )
        raise CatalogError([Problem(message, file, first_line)])
    try:
        loader = _loader_of(chunk.text)(chunk.text)
        try:
            for index in count():
                if not loader.check_node():
                    break
                node = loader.get_node()
                yield Document(file, _Builder(loader).build(node, 0), chunk, index)
        finally:
            loader.dispose()
    except _BadNode as error:
        raise CatalogError([Problem(error.message, file, error.line + first_line)]) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = mark.line + first_line if mark else 0
        reason = f"this is not YAML: {error.problem or error.context}"
        raise CatalogError([Problem(reason, file, line)]) from None
    except (yaml.YAMLError, RecursionError) as error:
        raise CatalogError([Problem(f"this is not YAML: {error}", file)]) from None


def _loader_of(text: str) -> Any:
    """Return the fast loader, or the one in Python if the text may be nested too deeply for it."""
    opened = text.count("[") + text.count("{")
    return yaml.SafeLoader if opened > MAX_OPENED or _DEEP_LINE.search(text) else SafeLoader


class _Builder:
    """A builder of the values of one document. It refuses YAML that catalogs do not support."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader
        self._values = 0

    def build(self, node: yaml.Node, depth: int) -> Any:
        self._values += 1
        if depth > MAX_DEPTH or self._values > MAX_VALUES:
            raise _BadNode(
                f"the document has more than {MAX_DEPTH} levels or {MAX_VALUES} values, or "
                "contains itself",
                node,
            )
        if isinstance(node, yaml.MappingNode):
            mapping: dict[Any, Any] = {}
            for key_node, value_node in node.value:
                if not isinstance(key_node, yaml.ScalarNode):
                    raise _BadNode("a key must be a name, not a list or a mapping", key_node)
                if key_node.value == "<<":
                    raise _BadNode("'<<' is not supported: write the merged keys out", key_node)
                key = self._scalar(key_node)
                if key in mapping:
                    raise _BadNode(f"the key '{key}' is given twice", key_node)
                mapping[key] = self.build(value_node, depth + 1)
            return mapping
        if isinstance(node, yaml.SequenceNode):
            return [self.build(item, depth + 1) for item in node.value]
        return self._scalar(node)

    def _scalar(self, node: yaml.Node) -> Any:
        if node.tag == _TEXT:
            return node.value
        try:
            return self._loader.construct_object(node, deep=True)
        except ValueError as error:
            raise _BadNode(f"this value can't be read: {error}", node) from None


def parse_object(document: Document) -> CatalogObject:
    """Return the object that a document describes. Raise `CatalogError` with all its problems."""
    data = document.data
    if not isinstance(data, dict):
        raise CatalogError([document.problem("an object must be a mapping with 'kind' and 'name'")])
    kind = data.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        message = (
            "'kind' is missing: " + did_you_mean("", KINDS)
            if kind is None
            else f"unknown kind '{shortened(str(kind))}': {did_you_mean(str(kind), KINDS)}"
        )
        raise CatalogError([document.problem(message, "kind")])
    try:
        return KINDS[kind].model_validate(data)
    except ValidationError as error:
        problems = dict.fromkeys(_problems(document, error))
        raise CatalogError(list(problems)) from None


def _problems(document: Document, error: ValidationError) -> Iterator[Problem]:
    """Yield a problem for each error that pydantic has found."""
    for detail in error.errors(include_url=False):
        steps = _real_steps(document.data, detail["loc"])
        message = detail["msg"].removeprefix("Value error, ")
        if detail["type"] == "unknown_key":
            steps = (*steps, detail["ctx"]["key"])
        elif detail["type"] == "missing":
            message = f"'{detail['loc'][-1]}' is missing"
        elif detail["type"] != "value_error" and not isinstance(detail["input"], dict | list):
            # The messages of pydantic do not quote the value.
            message = f"{message} (not {detail['input']!r})"
        yield document.problem(message, path_text(steps))


def _real_steps(data: Any, loc: Steps) -> Steps:
    """Return the steps of `loc` that exist in the data.

    If a field has several types, pydantic adds the type that it tried as a step.
    """
    steps: list[str | int] = []
    for step in loc:
        if isinstance(data, dict):
            exists = step in data
        else:
            exists = isinstance(data, list) and isinstance(step, int) and step < len(data)
        if exists:
            data = data[step]
            steps.append(step)
    return tuple(steps)
