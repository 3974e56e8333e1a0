"""Rewrite single objects in the YAML files that people edit. All other text stays unchanged."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from kirana.catalog.documents import Chunk, SafeLoader, chunks_of, documents_of
from kirana.catalog.items import Key
from kirana.catalog.sources import SourceFiles
from kirana.errors import CatalogError, Problem


@dataclass(frozen=True, slots=True)
class _Span:
    """The positions of an object in the text of its file."""

    key: Key
    start: int
    end: int


def rewrite(
    sources: SourceFiles, put: Mapping[Key, Mapping[str, Any]], deleted: Iterable[Key]
) -> dict[Path, bytes | None]:
    """Return the new content of each file that changes, or None for a file that becomes empty.

    A new object is written to `<kind>.<name>.yaml`, after any objects that are already there.
    Comments between objects stay. Comments inside an object are lost when the object is put or
    deleted. Raise `CatalogError` if the new content would not hold the right objects, or if the
    files can't be read.
    """
    new_texts = {key: _yaml_text(key, record) for key, record in put.items()}
    deleted_keys = set(deleted)
    spans: dict[Path, list[_Span]] = defaultdict(list)
    for chunk in sources.chunks_with({*new_texts, *deleted_keys}):
        spans[chunk.file] += _spans(chunk)
    texts: dict[Path, str] = {}
    written: dict[Path, dict[Key, Mapping[str, Any]]] = defaultdict(dict)
    for file, file_spans in spans.items():
        old = text = sources.text_of(file)
        for span in reversed(file_spans):
            if span.key in new_texts:
                written[file][span.key] = put[span.key]
                text = (
                    _with_newline(text[: span.start]) + new_texts.pop(span.key) + text[span.end :]
                )
            elif span.key in deleted_keys:
                text = _without(text, span)
        if text != old:
            texts[file] = text
    for key, text in new_texts.items():
        file = sources.folder / f"{key[0]}.{key[1]}.yaml"
        old_text = texts.get(file, sources.text_of(file))
        written[file][key] = put[key]
        texts[file] = text if _is_empty(old_text) else f"{_with_newline(old_text)}---\n{text}"
    for file, text in texts.items():
        _check_objects(file, sources.text_of(file), text, written[file], deleted_keys)
    return {file: None if _is_empty(text) else text.encode() for file, text in texts.items()}


def _with_newline(text: str) -> str:
    """Return the text with a newline at its end. An empty text stays empty."""
    return text if not text or text.endswith("\n") else text + "\n"


def _is_empty(text: str) -> bool:
    """Return whether a text has neither objects nor comments."""
    return not any(line.strip("- \r") for line in text.split("\n"))


def _check_objects(
    file: Path, old: str, new: str, put: Mapping[Key, Mapping[str, Any]], deleted: set[Key]
) -> None:
    """Raise `CatalogError` if the new text of a file does not hold the right objects.

    Only chunks that differ between the old text and the new one are parsed.
    """
    old_chunks, new_chunks = chunks_of(file, old), chunks_of(file, new)
    same_texts = {chunk.text for chunk in old_chunks} & {chunk.text for chunk in new_chunks}
    old_records = _records(chunk for chunk in old_chunks if chunk.text not in same_texts)
    new_records = _records(chunk for chunk in new_chunks if chunk.text not in same_texts)
    kept = {
        key: record for key, record in old_records.items() if key not in deleted and key not in put
    }
    expected = {**kept, **{key: _fields(record) for key, record in put.items()}}
    wrong = [key for key in {*expected, *new_records} if new_records.get(key) != expected.get(key)]
    if wrong:
        kind, name = min(wrong)
        message = f"{kind} '{name}' can't be written into this file: edit it by hand"
        raise CatalogError([Problem(message, str(file))])


def _records(chunks: Iterable[Chunk]) -> dict[Key, Any]:
    """Return the objects in some chunks by key, without the fields `kind` and `name`."""
    records = [
        document.data for chunk in chunks for document in documents_of(chunk) if document.data
    ]
    return {
        (str(record.get("kind")), str(record.get("name"))): _fields(record) for record in records
    }


def _fields(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of an object other than `kind` and `name`."""
    return {name: value for name, value in record.items() if name not in ("kind", "name")}


def _spans(chunk: Chunk) -> Iterable[_Span]:
    """Yield the objects in a chunk with their positions in the text of the file."""
    for node in yaml.compose_all(chunk.text, Loader=SafeLoader):
        if not isinstance(node, yaml.MappingNode):
            continue
        fields = {key.value: value.value for key, value in node.value}
        start = node.start_mark.index
        object_text = chunk.text[start : node.end_mark.index]
        lines = object_text.split("\n")
        # Comments and empty lines after the object belong to the next one.
        while len(lines) > 1 and (not lines[-1].strip() or lines[-1].lstrip().startswith("#")):
            lines.pop()
        end = start + len("\n".join(lines))
        if chunk.text[end : end + 1] == "\n":
            end += 1
        key = (str(fields.get("kind")), str(fields.get("name")))
        yield _Span(key, chunk.start + start, chunk.start + end)


def _without(text: str, span: _Span) -> str:
    """Return the text without an object, and without the `---` line above it.

    If the text begins with the object, remove the `---` line below it instead.
    """
    before, after = text[: span.start], text[span.end :]
    text_above = before.rstrip(" \n")
    if text_above.endswith("\n---") or text_above == "---":
        before = text_above[:-3]
    elif not before.strip() and after.lstrip("\n").startswith("---\n"):
        after = after.lstrip("\n")[4:]
    return before + after


def _yaml_text(key: Key, record: Mapping[str, Any]) -> str:
    """Return an object as YAML, with `kind` and `name` first."""
    ordered = {"kind": key[0], "name": key[1], **_fields(record)}
    # Each field is dumped by itself. Otherwise PyYAML would put a small object on one line, in
    # braces.
    return "".join(
        yaml.safe_dump(
            {name: value},
            sort_keys=False,
            default_flow_style=None if isinstance(value, list | dict) else False,
            width=100,
            allow_unicode=True,
        )
        for name, value in ordered.items()
    )
