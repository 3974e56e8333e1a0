"""A whole revision as it is written down: `catalog.json`, one object per line."""

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
"""From 2 on, objects stand there as `Item.raw` is."""


class _Head(msgspec.Struct):
    kind: str
    name: str


class RevisionFile(msgspec.Struct):
    """What is in a file, not parsed further yet."""

    objects: list[msgspec.Raw]
    versions: dict[str, msgspec.Raw]
    storage: dict[str, msgspec.Raw] | None = None
    """What was published before there were records has none."""
    catalog: str = ""
    format: int = 1

    @property
    def recorded(self) -> History:
        """The records of groups and entities, also if the objects can't be used any more."""
        versions = {name: written_versions(name, bytes(raw)) for name, raw in self.versions.items()}
        written = (self.storage or {}).items()
        return History(versions, {name: written_storage(name, bytes(raw)) for name, raw in written})

    @property
    def history(self) -> History:
        """The same, with first storage records made where none were written down."""
        if self.storage is not None:
            return self.recorded
        made = storage_of(orjson.loads(bytes(each)) for each in self.objects)
        return History(self.recorded.versions, made)

    def parsed_items(self) -> dict[Key, Item]:
        """Raises `ValueError`, `KeyError` or `TypeError` for what is no object."""
        return parse_items(self.objects)

    def items(self) -> dict[Key, Item]:
        """Return the objects of a revision that is known to be valid: none is parsed."""
        if self.format != FORMAT:
            return self.parsed_items()
        keys = [(head.kind, head.name) for head in map(_HEAD.decode, self.objects)]
        return {key: Item(key, bytes(raw)) for key, raw in zip(keys, self.objects, strict=True)}


_HEAD = msgspec.json.Decoder(_Head)
_FILE = msgspec.json.Decoder(RevisionFile)


def read_revision(content: bytes) -> RevisionFile:
    """Raises `ValueError` for what is no revision."""
    try:
        return _FILE.decode(content)
    except msgspec.MsgspecError as error:
        raise ValueError(str(error)) from None


def serialize(catalog: Catalog, identity: str) -> list[bytes]:
    """Return a whole revision, in parts."""
    head = orjson.dumps({"catalog": identity, "format": FORMAT})[:-1]
    return [
        head,
        b',\n"objects":[\n',
        *_between([item.raw for item in catalog.all_items()]),
        b'\n],\n"versions":{\n',
        *_lines(catalog.versions),
        b'\n},\n"storage":{\n',
        *_lines(catalog.storage),
        b"\n}}\n",
    ]


def _lines(records: Mapping[str, Records[Any]]) -> list[bytes]:
    names = sorted(records)
    return _between([b'"%b":%b' % (name.encode(), records[name].raw) for name in names])


def _between(lines: list[bytes]) -> list[bytes]:
    """Return lines with what stands between them."""
    found = [b",\n"] * max(2 * len(lines) - 1, 0)
    found[::2] = lines
    return found


def parse_items(raws: Iterable[msgspec.Raw]) -> dict[Key, Item]:
    """Parse published objects. Raises `ValueError`, `KeyError` or `TypeError` for what is none."""
    items = (Item.parse(orjson.loads(bytes(raw))) for raw in raws)
    return {item.key: item for item in items}
