"""Two caches of a catalog directory. With them, a publish reads and checks only what has changed.

`remembered.json` records the source files of the last publish. `uses.json` records, for each
compiled object of a revision, which objects its compiler looked up. Without them, or after a change
of Kirana's code, a publish reads and checks everything.
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

_PACKAGES = ("catalog", "codecs", "expressions", "flow", "inferflow", "models", "serving")
"""The packages whose code decides what is valid, besides the modules directly in `kirana`."""


@cache
def _code_digest() -> str:
    """Return a digest of the code that checks a catalog."""
    home = Path(kirana.__file__).parent
    files = [*home.glob("*.py")]
    for package in _PACKAGES:
        files += (home / package).rglob("*.py")
    digest = blake2b(kirana.__version__.encode(), digest_size=16)
    for file in sorted(files):
        digest.update(file.read_bytes())
    return digest.hexdigest()


Stamps = list[Stamp]
"""The stamps of the record files of a group or an entity, in order."""


class Remembered(msgspec.Struct):
    """The source files that the last publish read, as digests and stamps.

    `code` is the digest of the code that checked the files. `chunks` maps the digest of a chunk's
    text to the kind and name of its object, and to the digest of the published item. `records` maps
    a group or entity to the stamps of its record files, and to the digest of the records.
    """

    code: str = msgspec.field(default_factory=_code_digest)
    chunks: dict[str, tuple[str, str, str]] = {}
    records: dict[str, tuple[Stamps, str]] = {}

    def item_of(self, chunk: Chunk, live: Catalog | None) -> Item | None:
        """Return the item of `live` that was published from a chunk with this text, or None."""
        if live is None:
            return None
        remembered = self.chunks.get(text_digest(chunk.text))
        if remembered is None:
            return None
        kind, name, digest = remembered
        item = live.item((kind, name))
        return item if item is not None and item_digest(item) == digest else None

    def has_records(self, name: str, stamps: Stamps, digest: str) -> bool:
        """Return whether files with these stamps held records with this digest."""
        return self.records.get(name) == (stamps, digest)


def text_digest(text: str) -> str:
    """Return the digest of the text of a chunk."""
    return content_digest(text.encode(errors="surrogatepass"))


def item_digest(item: Item) -> str:
    """Return the digest of the JSON of an item."""
    return content_digest(item.raw)


_DECODER = msgspec.json.Decoder(Remembered)


def read_remembered(file: Path) -> Remembered:
    """Read a file from `write_remembered`.

    Return an empty `Remembered` if the file is missing or damaged, or if the code has changed.
    """
    try:
        remembered = _DECODER.decode(file.read_bytes())
    except (OSError, msgspec.MsgspecError):
        return Remembered()
    return remembered if remembered.code == _code_digest() else Remembered()


def write_remembered(file: Path, remembered: Remembered) -> None:
    """Write a file for `read_remembered`, durably."""
    write_durably(file, msgspec.json.encode(remembered))


class _UsesFile(msgspec.Struct):
    code: str
    stamp: Stamp
    uses: list[tuple[Key, list[Key]]]


def spell_uses(uses: Mapping[Key, Uses], stamp: Stamp) -> bytes:
    """Return `Catalog.uses` of a valid revision as JSON.

    `stamp` is the stamp of the file of the revision.
    """
    pairs = [(key, sorted(looked_up)) for key, looked_up in uses.items()]
    return msgspec.json.encode(_UsesFile(_code_digest(), stamp, pairs))


def read_uses(content: bytes, stamp: Stamp) -> dict[Key, Uses] | None:
    """Return the uses in the JSON of `spell_uses`.

    Return None if the JSON is damaged, or if the file of the revision or the code has changed.
    """
    try:
        file = msgspec.json.decode(content, type=_UsesFile)
    except msgspec.MsgspecError:
        return None
    if file.code != _code_digest() or file.stamp != stamp:
        return None
    return {key: frozenset(looked_up) for key, looked_up in file.uses}
