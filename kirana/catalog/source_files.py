"""The YAML files that people edit, rewritten object by object; the text of the others stays."""

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
    key: Key
    start: int
    end: int


def rewrite(
    sources: SourceFiles, put: Mapping[Key, Mapping[str, Any]], deleted: Iterable[Key]
) -> dict[Path, bytes | None]:
    """Return the new content of each file that changes, None for one that holds no object more.

    A new object gets a file of its own, `<kind>.<name>.yaml`. Comments between objects stay,
    those inside of an object that is put go with it.
    """
    waiting = {key: _text(key, record) for key, record in put.items()}
    gone = set(deleted)
    spans: dict[Path, list[_Span]] = defaultdict(list)
    for chunk in sources.chunks_with({*waiting, *gone}):
        spans[chunk.file] += _spans(chunk)
    texts: dict[Path, str] = {}
    written: dict[Path, dict[Key, Mapping[str, Any]]] = defaultdict(dict)
    for file, found in spans.items():
        old = text = sources.text_of(file)
        for span in reversed(found):
            if span.key in waiting:
                written[file][span.key] = put[span.key]
                text = _ended(text[: span.start]) + waiting.pop(span.key) + text[span.end :]
            elif span.key in gone:
                text = _without(text, span)
        if text != old:
            texts[file] = text
    for key, text in waiting.items():
        file = sources.folder / f"{key[0]}.{key[1]}.yaml"
        before = texts.get(file, sources.text_of(file))
        written[file][key] = put[key]
        texts[file] = text if _is_empty(before) else f"{_ended(before)}---\n{text}"
    for file, text in texts.items():
        _require_right(file, sources.text_of(file), text, written[file], gone)
    return {file: None if _is_empty(text) else text.encode() for file, text in texts.items()}


def _ended(text: str) -> str:
    """End the last line of a text."""
    return text if not text or text.endswith("\n") else text + "\n"


def _is_empty(text: str) -> bool:
    """Whether no object and no comment is left."""
    return not any(line.strip("- \r") for line in text.split("\n"))


def _require_right(
    file: Path, old: str, new: str, put: Mapping[Key, Mapping[str, Any]], gone: set[Key]
) -> None:
    """Raise `CatalogError` if a new text does not hold what it should: what has changed is read."""
    before, after = chunks_of(file, old), chunks_of(file, new)
    same = {chunk.text for chunk in before} & {chunk.text for chunk in after}
    was = _records(chunk for chunk in before if chunk.text not in same)
    now = _records(chunk for chunk in after if chunk.text not in same)
    kept = {key: record for key, record in was.items() if key not in gone and key not in put}
    right = {**kept, **{key: _fields(record) for key, record in put.items()}}
    wrong = [key for key in {*right, *now} if now.get(key) != right.get(key)]
    if wrong:
        kind, name = min(wrong)
        message = f"{kind} '{name}' can't be written beside what is there: edit the file"
        raise CatalogError([Problem(message, str(file))])


def _records(chunks: Iterable[Chunk]) -> dict[Key, Any]:
    documents = [each.data for chunk in chunks for each in documents_of(chunk) if each.data]
    return {(str(each.get("kind")), str(each.get("name"))): _fields(each) for each in documents}


def _fields(record: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name not in ("kind", "name")}


def _spans(chunk: Chunk) -> Iterable[_Span]:
    """Yield where the objects of a chunk stand in its file."""
    for node in yaml.compose_all(chunk.text, Loader=SafeLoader):
        if not isinstance(node, yaml.MappingNode):
            continue
        values = {key.value: value.value for key, value in node.value}
        start = node.start_mark.index
        written = chunk.text[start : node.end_mark.index]
        lines = written.split("\n")
        # the comments that follow belong to what comes next
        while len(lines) > 1 and (not lines[-1].strip() or lines[-1].lstrip().startswith("#")):
            lines.pop()
        end = start + len("\n".join(lines))
        if chunk.text[end : end + 1] == "\n":
            end += 1
        key = (str(values.get("kind")), str(values.get("name")))
        yield _Span(key, chunk.start + start, chunk.start + end)


def _without(text: str, span: _Span) -> str:
    """Take an object out, with the line of dashes above it."""
    before, after = text[: span.start], text[span.end :]
    above = before.rstrip(" \n")
    if above.endswith("\n---") or above == "---":
        before = above[:-3]
    elif not before.strip() and after.lstrip("\n").startswith("---\n"):
        after = after.lstrip("\n")[4:]
    return before + after


def _text(key: Key, record: Mapping[str, Any]) -> str:
    ordered = {"kind": key[0], "name": key[1], **_fields(record)}
    # one by one: all at once, a small object would be one line in braces
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
