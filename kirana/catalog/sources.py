"""The objects in the YAML files that people edit, and the place of each object."""

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
    """An object, and the document that it was written in."""

    object: CatalogObject
    document: Document

    @property
    def key(self) -> Key:
        """The kind and the name of the object."""
        return (self.object.kind, self.object.name)

    @cached_property
    def item(self) -> Item:
        """The item of the object. Raise `CatalogError` for a value that JSON can't hold."""
        try:
            return Item.of(self.object)
        except CatalogError as error:
            problems = [self.document.problem(problem.message) for problem in error.problems]
            raise CatalogError(problems) from None


def parse_documents(documents: Iterable[Document]) -> list[Located]:
    """Return the objects in these documents. Skip empty documents.

    Raise `CatalogError` with the problems of all documents.
    """
    by_key: dict[Key, Located] = {}
    problems: list[Problem] = []
    for document in documents:
        if document.data is None:
            continue
        try:
            located = Located(parse_object(document), document)
        except CatalogError as error:
            problems += error.problems
            continue
        first_object = by_key.setdefault(located.key, located)
        if first_object is not located:
            kind, name = located.key
            first_document = first_object.document
            line = first_document.lines.get("")
            place = f"{first_document.file}:{line}" if line else first_document.file
            message = f"{kind} '{name}' is already defined in {place}"
            problems.append(document.problem(message, "name"))
    if problems:
        raise CatalogError(problems)
    return list(by_key.values())


class SourceFiles:
    """The YAML files of a folder. A file is read again only after it has changed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._split: dict[Path, tuple[Stamp, list[Chunk], list[Key | None]]] = {}
        """For each file: its stamp, its chunks, and the result of `key_in` for each chunk."""

    def read(self, known: Callable[[Chunk], Item | None] = lambda chunk: None) -> Sources:
        """Return all objects. Raise `CatalogError` for text or objects that are not valid.

        If `known` returns an item for a chunk, the chunk is not parsed.
        """
        unchanged: dict[Key, tuple[Item, Chunk]] = {}
        chunks = []
        for chunk in self._chunks():
            item = known(chunk)
            if item is None or item.key in unchanged:
                chunks.append(chunk)
            else:
                unchanged[item.key] = (item, chunk)
        objects = parse_documents(self._read(chunks))
        duplicates = [located.key for located in objects if located.key in unchanged]
        if duplicates:
            # Parse all chunks, so that the error names both places.
            objects = parse_documents(self._read(self._chunks()))
            unchanged = {}
        return Sources({located.key: located for located in objects}, unchanged)

    def find(self, keys: Collection[Key]) -> dict[Key, Located]:
        """Return the objects with these keys. Leave out keys that no file defines.

        Only the chunks that `chunks_with` returns are parsed.
        """
        objects = parse_documents(self._read(self.chunks_with(keys)))
        return {located.key: located for located in objects if located.key in keys}

    def chunks_with(self, keys: Collection[Key]) -> list[Chunk]:
        """Return the chunks that may hold objects with these keys, in order of file and line.

        Include chunks whose keys only a parser can find.
        """
        wanted_keys = {*keys, None}
        matches = []
        for file in self._files():
            _, chunks, chunk_keys = self._split_file(file)
            if not wanted_keys.isdisjoint(chunk_keys):
                matches += [
                    chunk
                    for chunk, key in zip(chunks, chunk_keys, strict=True)
                    if key in wanted_keys
                ]
        return matches

    def text_of(self, file: Path) -> str:
        """Return the text of a file as it was last read, or "" if it did not exist then."""
        return "".join(chunk.text for chunk in self._split[file][1]) if file in self._split else ""

    def require_unchanged(self, files: Iterable[Path]) -> None:
        """Raise `Conflict` if one of these files has changed or appeared since it was last read."""
        for file in files:
            stamp = self._split[file][0] if file in self._split else ()
            if stamp != stamp_of(file):
                raise Conflict(f"{file} changed while it was being rewritten: try again")

    def _chunks(self) -> Iterator[Chunk]:
        for file in self._files():
            yield from self._split_file(file)[1]

    def _files(self) -> list[Path]:
        files = source_files(self.folder)
        for file in self._split.keys() - set(files):
            del self._split[file]
        return files

    def _split_file(self, file: Path) -> tuple[Stamp, list[Chunk], list[Key | None]]:
        """Return the entry of a file in `_split`. Read the file if it has changed."""
        stamp = stamp_of(file)
        cached = self._split.get(file)
        if cached is None or cached[0] != stamp:
            chunks = chunks_of(file, read_text(file))
            cached = self._split[file] = (stamp, chunks, [key_in(chunk.text) for chunk in chunks])
        return cached

    @staticmethod
    def _read(chunks: Iterable[Chunk]) -> Iterator[Document]:
        for chunk in chunks:
            yield from documents_of(chunk)


@dataclass(frozen=True, slots=True)
class Sources:
    """The objects of a folder.

    `located` are the objects that were parsed. `unchanged` are those whose chunks were known.
    """

    located: Mapping[Key, Located]
    unchanged: Mapping[Key, tuple[Item, Chunk]]

    def items(self) -> dict[Key, Item]:
        """Return all items. Raise `CatalogError` for a value that JSON can't hold."""
        parsed = {key: located.item for key, located in self.located.items()}
        return {**parsed, **{key: item for key, (item, _) in self.unchanged.items()}}

    def document(self, key: Key) -> Document:
        """Return the document that an object is written in."""
        if key in self.located:
            return self.located[key].document
        return next(documents_of(self.unchanged[key][1]))

    def chunks(self) -> Iterator[tuple[Chunk, Key]]:
        """Yield chunks that hold exactly one object, each with the key of the object.

        Chunks whose keys only a parser can find are left out.
        """
        for key, (_, chunk) in self.unchanged.items():
            yield chunk, key
        objects_per_chunk = Counter(located.document.chunk for located in self.located.values())
        for key, located in self.located.items():
            own_chunk = located.document.chunk
            if (
                own_chunk is not None
                and objects_per_chunk[own_chunk] == 1
                and key_in(own_chunk.text) == key
            ):
                yield own_chunk, key


def key_in(text: str) -> Key | None:
    """Return the key of the only object in the text of a chunk.

    Return None if the text has no object or several, or if only a parser can find the key.
    """
    if may_hold_several(text):
        return None
    pairs = _HEAD.findall(text)
    fields = dict(pairs)
    return (fields["kind"], fields["name"]) if len(pairs) == len(fields) == 2 else None
