"""The objects in the files that people edit; each chunk of text is parsed once."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from kirana.catalog.documents import (
    Chunk,
    Document,
    chunks_of,
    documents_of,
    may_hold_several,
    parse_object,
    read_text,
    source_files,
)
from kirana.catalog.items import Item, Key
from kirana.catalog.objects import CatalogObject
from kirana.catalog.stamps import Stamp, stamp_of
from kirana.errors import CatalogError, Conflict, Problem

_HEAD = re.compile(r"^(kind|name):[ \t]*([\w.-]+)[ \t]*(?:#.*)?$", re.MULTILINE)


@dataclass(frozen=True)
class Located:
    """An object and where it was written."""

    object: CatalogObject
    document: Document

    @property
    def key(self) -> Key:
        return (self.object.kind, self.object.name)

    @cached_property
    def item(self) -> Item:
        """Raises `CatalogError` for an object that can't be published."""
        try:
            return Item.of(self.object)
        except CatalogError as error:
            problems = [self.document.problem(each.message) for each in error.problems]
            raise CatalogError(problems) from None


def parse_documents(documents: Iterable[Document]) -> list[Located]:
    """Parse every document. Raises `CatalogError` with the problems of all of them."""
    located: dict[Key, Located] = {}
    problems: list[Problem] = []
    for document in documents:
        if document.data is None:
            continue
        try:
            each = Located(parse_object(document), document)
        except CatalogError as error:
            problems += error.problems
            continue
        first = located.setdefault(each.key, each)
        if first is not each:
            kind, name = each.key
            where = f"{first.document.file}:{first.document.lines.get('', 0)}"
            problems.append(document.problem(f"{kind} '{name}' is already in {where}", "name"))
    if problems:
        raise CatalogError(problems)
    return list(located.values())


class SourceFiles:
    """The YAML files of a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._split: dict[Path, tuple[Stamp, list[Chunk], list[Key | None]]] = {}
        """Chunks and what they plainly hold, by the stamp of their file."""

    def read(self, known: Callable[[Chunk], Item | None] = lambda chunk: None) -> Sources:
        """Return all objects. Raises `CatalogError` for text or objects that are none.

        Of chunks whose item is `known` the text is not parsed.
        """
        unchanged: dict[Key, tuple[Item, Chunk]] = {}
        chunks = []
        for chunk in self._chunks():
            item = known(chunk)
            if item is None or item.key in unchanged:
                chunks.append(chunk)
            else:
                unchanged[item.key] = (item, chunk)
        located = parse_documents(self._read(chunks))
        twice = [each.key for each in located if each.key in unchanged]
        if twice:
            # what is said of it names both files
            located = parse_documents(self._read(self._chunks()))
            unchanged = {}
        return Sources({each.key: each for each in located}, unchanged)

    def find(self, keys: Collection[Key]) -> dict[Key, Located]:
        """Return those of some objects that are in the files: other chunks are not parsed."""
        located = parse_documents(self._read(self.chunks_with(keys)))
        return {each.key: each for each in located if each.key in keys}

    def chunks_with(self, keys: Collection[Key]) -> list[Chunk]:
        """Return the chunks that may hold some objects, in order of file and line."""
        names = {*keys, None}
        found = []
        for file in self._files():
            _, chunks, held = self._split_file(file)
            if not names.isdisjoint(held):
                found += [each for each, key in zip(chunks, held, strict=True) if key in names]
        return found

    def text_of(self, file: Path) -> str:
        """Return the text of a file as `chunks_with` has read it, "" if it was not there."""
        return "".join(chunk.text for chunk in self._split[file][1]) if file in self._split else ""

    def require_unchanged(self, files: Iterable[Path]) -> None:
        """Raise `Conflict` if somebody has saved one of some files since it was read."""
        for file in files:
            stamp = self._split[file][0] if file in self._split else ()
            if stamp != stamp_of(file):
                raise Conflict(f"{file} changed while it was read: try again")

    def _chunks(self) -> Iterator[Chunk]:
        for file in self._files():
            yield from self._split_file(file)[1]

    def _files(self) -> list[Path]:
        files = source_files(self.folder)
        for file in self._split.keys() - set(files):
            del self._split[file]
        return files

    def _split_file(self, file: Path) -> tuple[Stamp, list[Chunk], list[Key | None]]:
        """Split a file, unless that is done and nothing has changed in it."""
        stamp = stamp_of(file)
        known = self._split.get(file)
        if known is None or known[0] != stamp:
            chunks = chunks_of(file, read_text(file))
            known = self._split[file] = (stamp, chunks, [key_in(each.text) for each in chunks])
        return known

    @staticmethod
    def _read(chunks: Iterable[Chunk]) -> Iterator[Document]:
        for chunk in chunks:
            yield from documents_of(chunk)


@dataclass(frozen=True, slots=True)
class Sources:
    """The objects of a folder: those that were parsed, and those of chunks that were known."""

    located: Mapping[Key, Located]
    unchanged: Mapping[Key, tuple[Item, Chunk]]

    def items(self) -> dict[Key, Item]:
        """Raises `CatalogError` for an object that can't be published."""
        parsed = {key: each.item for key, each in self.located.items()}
        return {**parsed, **{key: item for key, (item, _) in self.unchanged.items()}}

    def document(self, key: Key) -> Document:
        """Return where an object was written."""
        if key in self.located:
            return self.located[key].document
        return next(documents_of(self.unchanged[key][1]))

    def chunks(self) -> Iterator[tuple[Chunk, Key]]:
        """Yield the chunks that hold one object, and its key."""
        for key, (_, chunk) in self.unchanged.items():
            yield chunk, key
        held = Counter(each.document.chunk for each in self.located.values())
        for key, each in self.located.items():
            chunk_of = each.document.chunk
            if chunk_of is not None and held[chunk_of] == 1 and key_in(chunk_of.text) == key:
                yield chunk_of, key


def key_in(text: str) -> Key | None:
    """Return the kind and name that a chunk plainly has; None if they take a parser to see."""
    if may_hold_several(text):
        return None
    found = _HEAD.findall(text)
    named = dict(found)
    return (named["kind"], named["name"]) if len(found) == len(named) == 2 else None
