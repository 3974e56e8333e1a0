"""The file of a whole revision: `catalog.json`, with one object per line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
import orjson

from kirana.catalog.history import History
from kirana.catalog.items import Item, Key
from kirana.catalog.records import Records
from kirana.catalog.schema_records import written_versions
from kirana.catalog.snapshot import Catalog
from kirana.catalog.storage_records import storage_of, written_storage

FORMAT = 2
"""Since format 2, the bytes of an object in the file are those of `Item.raw`."""


class _Head(msgspec.Struct):
    kind: str
    name: str


class RevisionFile(msgspec.Struct):
    """The content of a `catalog.json`. Its objects and records are not parsed yet."""

    objects: list[msgspec.Raw]
    versions: dict[str, msgspec.Raw]
    storage: dict[str, msgspec.Raw] | None = None
    """None if the revision is from a version of Kirana without storage records."""
    catalog: str = ""
    format: int = 1

    @property
    def recorded(self) -> History:
        """The records in the file, not parsed yet. The objects need not be valid."""
        versions = {name: written_versions(name, bytes(raw)) for name, raw in self.versions.items()}
        written = (self.storage or {}).items()
        return History(versions, {name: written_storage(name, bytes(raw)) for name, raw in written})

    @property
    def history(self) -> History:
        """The records in the file. If it has no storage records, they are made from the objects."""
        if self.storage is not None:
            return self.recorded
        storage = storage_of(orjson.loads(bytes(record)) for record in self.objects)
        return History(self.recorded.versions, storage)

    def parsed_items(self) -> dict[Key, Item]:
        """Parse the objects. Raise `ValueError`, `KeyError` or `TypeError` if one is not valid."""
        return parse_items(self.objects)

    def items(self) -> dict[Key, Item]:
        """Return the objects of a revision that is known to be valid.

        The objects are parsed only if the file has another format than `FORMAT`.
        """
        if self.format != FORMAT:
            return self.parsed_items()
        keys = [(head.kind, head.name) for head in map(_HEAD.decode, self.objects)]
        return {key: Item(key, bytes(raw)) for key, raw in zip(keys, self.objects, strict=True)}


_HEAD = msgspec.json.Decoder(_Head)
_FILE = msgspec.json.Decoder(RevisionFile)


def read_revision(content: bytes) -> RevisionFile:
    """Parse the file of a revision, except its objects and records.

    Raise `ValueError` if the content is not from such a file.
    """
    try:
        return _FILE.decode(content)
    except msgspec.MsgspecError as error:
        raise ValueError(str(error)) from None


def serialize(catalog: Catalog, identity: str) -> list[bytes]:
    """Return the content of the file of a revision, in pieces for `write_durably`."""
    head = orjson.dumps({"catalog": identity, "format": FORMAT})[:-1]
    return [
        head,
        b',\n"objects":[\n',
        *_with_commas([item.raw for item in catalog.all_items()]),
        b'\n],\n"versions":{\n',
        *_lines(catalog.versions),
        b'\n},\n"storage":{\n',
        *_lines(catalog.storage),
        b"\n}}\n",
    ]


def _lines(records: Mapping[str, Records[Any]]) -> list[bytes]:
    names = sorted(records)
    return _with_commas([b'"%b":%b' % (name.encode(), records[name].raw) for name in names])


def _with_commas(lines: list[bytes]) -> list[bytes]:
    """Return the lines, with a comma and a newline as a separate element between each two."""
    pieces = [b",\n"] * max(2 * len(lines) - 1, 0)
    pieces[::2] = lines
    return pieces


def parse_items(raws: Iterable[msgspec.Raw]) -> dict[Key, Item]:
    """Parse objects. Raise `ValueError`, `KeyError` or `TypeError` if one is not valid."""
    items = (Item.parse(orjson.loads(bytes(raw))) for raw in raws)
    return {item.key: item for item in items}
