"""The YAML files that people edit, rewritten object by object; the text of the others stays."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from kirana.catalog.documents import Chunk, SafeLoader
from kirana.catalog.items import Key
from kirana.catalog.sources import SourceFiles


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
    files: dict[Path, bytes | None] = {}
    for file, found in spans.items():
        old = text = sources.text_of(file)
        for span in reversed(found):
            if span.key in waiting:
                text = text[: span.start] + waiting.pop(span.key) + text[span.end :]
            elif span.key in gone:
                text = _without(text, span)
        if text != old:
            empty = not any(line.strip("- \r") for line in text.split("\n"))
            files[file] = None if empty else text.encode()
    for key, text in waiting.items():
        file = sources.folder / f"{key[0]}.{key[1]}.yaml"
        taken = file.read_bytes() + b"---\n" if file.exists() else b""
        files[file] = (files.get(file) or taken) + text.encode()
    return files


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
    rest = {name: value for name, value in record.items() if name not in ("kind", "name")}
    ordered = {"kind": key[0], "name": key[1], **rest}
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
