"""What the last publishing knew of the files, so that the next one reads only what has changed.

It is a shortcut: without it, or by other code than this, everything is read and checked.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from hashlib import blake2b
from pathlib import Path

import msgspec

import kirana
from kirana.catalog.documents import Chunk
from kirana.catalog.durable import write_durably
from kirana.catalog.items import Item, Key
from kirana.catalog.snapshot import Catalog, Uses
from kirana.catalog.stamps import Stamp, content_digest

_ROOMS = ("catalog", "codecs", "expressions", "flow", "inferflow", "serving")
"""Whose code decides what is valid; beside them, the files at the top of the package."""


@cache
def _code() -> str:
    """Return what differs once the code that checks a catalog does."""
    home = Path(kirana.__file__).parent
    files = [*home.glob("*.py"), *(file for room in _ROOMS for file in (home / room).rglob("*.py"))]
    digest = blake2b(kirana.__version__.encode(), digest_size=16)
    for file in sorted(files):
        digest.update(file.read_bytes())
    return digest.hexdigest()


Stamps = list[Stamp]
"""Of the files of a group's or an entity's records, in order."""


class Remembered(msgspec.Struct):
    """`chunks` are of the source files by the digests of their texts: what object each held, and
    the digest of the item that it was published as. `records` are by group or entity: the stamps
    of their files, and the digest of what they held.
    """

    code: str = msgspec.field(default_factory=_code)
    chunks: dict[str, tuple[str, str, str]] = {}
    records: dict[str, tuple[Stamps, str]] = {}

    def item_of(self, chunk: Chunk, live: Catalog) -> Item | None:
        """Return the live item that a chunk was published as, if it still is."""
        found = self.chunks.get(text_digest(chunk.text))
        if found is None:
            return None
        kind, name, digest = found
        item = live.item((kind, name))
        return item if item is not None and item_digest(item) == digest else None

    def has_records(self, name: str, stamps: Stamps, digest: str) -> bool:
        """Whether the files of a group or entity hold what has this digest."""
        return self.records.get(name) == (stamps, digest)


def text_digest(text: str) -> str:
    return content_digest(text.encode(errors="surrogatepass"))


def item_digest(item: Item) -> str:
    return content_digest(item.raw)


_FILE = msgspec.json.Decoder(Remembered)


def read_remembered(file: Path) -> Remembered:
    """Return nothing where there is no file by this code that can be read."""
    try:
        found = _FILE.decode(file.read_bytes())
    except (OSError, msgspec.MsgspecError):
        return Remembered()
    return found if found.code == _code() else Remembered()


def write_remembered(file: Path, remembered: Remembered) -> None:
    write_durably(file, msgspec.json.encode(remembered))


class _UsesFile(msgspec.Struct):
    code: str
    stamp: Stamp
    uses: list[tuple[Key, list[Key]]]


def spell_uses(uses: Mapping[Key, Uses], stamp: Stamp) -> bytes:
    """Return what the compiled objects of a revision have looked up, as it is written down.

    `stamp` is that of the file of the revision, which was valid.
    """
    found = [(key, sorted(each)) for key, each in uses.items()]
    return msgspec.json.encode(_UsesFile(_code(), stamp, found))


def read_uses(content: bytes, stamp: Stamp) -> dict[Key, Uses] | None:
    """Return what `spell_uses` made of the same file with the same code."""
    try:
        found = msgspec.json.decode(content, type=_UsesFile)
    except msgspec.MsgspecError:
        return None
    if found.code != _code() or found.stamp != stamp:
        return None
    return {key: frozenset(each) for key, each in found.uses}
