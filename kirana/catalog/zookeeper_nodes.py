"""The nodes of a catalog in ZooKeeper: objects by their digest, and the append-only records.

None of them is ever changed: a revision names the objects and counts the records that it has.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import orjson
from kazoo.exceptions import NodeExistsError, NoNodeError

from kirana.catalog.items import Item, Key
from kirana.catalog.records import Records
from kirana.catalog.schema_records import parse_version, version_records
from kirana.catalog.storage_records import (
    Storage,
    StorageRecord,
    parse_record,
    storage_of,
    storage_records,
)
from kirana.catalog.zookeeper_session import ZookeeperSession
from kirana.errors import CatalogError, Problem
from kirana.revision import Revision
from kirana.schema import SchemaVersion

MAX_NODE_BYTES = 1_000_000
"""ZooKeeper's own limit is 1 MiB, of the node and its path."""

UNUSED_MS = 3_600_000
"""An unused object stays for an hour: another publisher may be about to name it."""


class ZookeeperNodes:
    """Reads and writes the nodes below `root`. What was read once is not read again."""

    def __init__(self, session: ZookeeperSession, root: str) -> None:
        self._session = session
        self._root = root
        self._identity = ""
        self._objects: dict[str, Item] = {}
        self._versions: dict[tuple[str, int], SchemaVersion] = {}

    @property
    def last_objects(self) -> set[str]:
        """The names of the objects that were read last, those of one revision."""
        return set(self._objects)

    def published_storage(self, revision: Revision) -> Storage:
        """Return how the live revision stores rows, also if it can't be loaded any more."""
        (content,) = self._session.read_all([self.path(f"revisions/{revision.number}")])
        try:
            manifest = parsed(content or b"")
            if "storage" in manifest:
                return self.read_storage(manifest["storage"])
            paths = [self.path(f"objects/{name}") for name in manifest["objects"]]
            return storage_of(parsed(each or b"") for each in self._session.read_all(paths))
        except (AttributeError, ValueError, KeyError, TypeError):
            return {}

    def counts(self, names: Iterable[str]) -> dict[str, int]:
        """Return how many records each group or entity has."""
        return {name: len(self._session.children(self.path(f"versions/{name}"))) for name in names}

    def read_objects(self, names: Sequence[str]) -> dict[Key, Item]:
        """Read the objects of one revision. Raises `ValueError` if one is missing or damaged."""
        known = self._objects
        unread = [name for name in names if name not in known]
        contents = self._session.read_all([self.path(f"objects/{name}") for name in unread])
        read: dict[str, Item] = {}
        for name, content in zip(unread, contents, strict=True):
            if content is None:
                raise ValueError(f"its object {name} is missing")
            read[name] = Item.parse(parsed(content))
        # those of the last revision are kept, for the next one shares most of them
        found = {name: read[name] if name in read else known[name] for name in names}
        self._objects = found
        return {item.key: item for item in found.values()}

    def read_versions(
        self, identity: str, counts: Mapping[str, int]
    ) -> dict[str, Records[SchemaVersion]]:
        """Read the first `counts` schema versions of groups, of the catalog `identity`.

        Raises `ValueError`, `KeyError` or `TypeError` if one is missing or was changed.
        """
        if identity != self._identity:
            # another history has other versions of the same numbers
            self._identity, self._versions = identity, {}
        wanted = [(group, n) for group, count in counts.items() for n in range(1, count + 1)]
        unread = [each for each in wanted if each not in self._versions]
        contents = self._session.read_all([self.record_path(*each) for each in unread])
        for (group, number), content in zip(unread, contents, strict=True):
            record = _whole_record(content, group, number)
            version = parse_version(group, number, record["features"])
            _require_print(version, record)
            self._versions[group, number] = version
        return {
            group: version_records([self._versions[group, n] for n in range(1, count + 1)])
            for group, count in counts.items()
            if count
        }

    def read_storage(self, counts: Mapping[str, int]) -> dict[str, Records[StorageRecord]]:
        """Read the first `counts` storage records of entities. Raises as `read_versions`."""
        wanted = [(entity, n) for entity, count in counts.items() for n in range(1, count + 1)]
        contents = self._session.read_all([self.record_path(*each) for each in wanted])
        found: dict[str, list[StorageRecord]] = {}
        for (entity, number), content in zip(wanted, contents, strict=True):
            record = _whole_record(content, entity, number)
            storage = parse_record(entity, number, record)
            _require_print(storage, record)
            found.setdefault(entity, []).append(storage)
        return {entity: storage_records(records) for entity, records in found.items()}

    def write_object(self, item: Item, known: set[str]) -> str:
        """Store an object under its digest, if it isn't there; return its name below `objects`.

        `known` are those of the live revision, which are there.
        """
        kind, called = item.key
        content = item.raw
        self.check_size(content, f"{kind} '{called}'")
        digest = hashlib.blake2b(content, digest_size=8).hexdigest()
        name = f"{kind}/{called}/{digest}"
        if name in known:
            return name
        path = self.path(f"objects/{name}")
        try:
            self._session.ask(lambda client: client.create_async(path, content, makepath=True))
        except NodeExistsError:
            # written again, so that another publisher does not remove it as unused
            self._session.ask(lambda client: client.set_async(path, content))
        return name

    @staticmethod
    def check_size(content: bytes, what: str) -> None:
        """Raise `CatalogError` for what no node can hold."""
        if len(content) > MAX_NODE_BYTES:
            message = f"{what} takes {len(content)} bytes, a node of ZooKeeper {MAX_NODE_BYTES}"
            raise CatalogError([Problem(message)])

    def ensure(self, name: str) -> None:
        """Make a node and those above it, unless they are there."""
        self._session.ask(lambda client: client.ensure_path_async(self.path(name)))

    def prune_objects(self, kept: Sequence[int]) -> None:
        """Remove objects that none of the revisions `kept` names, and that are not new."""
        manifests = self._session.read_all([self.path(f"revisions/{number}") for number in kept])
        if None in manifests:
            return  # another publisher prunes as well
        named = {name for each in manifests if each for name in parsed(each)["objects"]}
        root = self.path("objects")
        now_ms = time.time() * 1000
        for kind in self._session.children(root):
            for name in self._session.children(f"{root}/{kind}"):
                for digest in self._session.children(f"{root}/{kind}/{name}"):
                    path = f"{root}/{kind}/{name}/{digest}"
                    if f"{kind}/{name}/{digest}" in named:
                        continue
                    stat = self._session.exists(path)
                    if stat is not None and now_ms - stat.mtime > UNUSED_MS:
                        self.remove(path)

    def remove(self, path: str) -> None:
        """Remove a node. No-op if it isn't there."""
        with suppress(NoNodeError):
            self._session.ask(lambda client: client.delete_async(path))

    def path(self, name: str) -> str:
        """Return the path of a node below the root."""
        return f"{self._root}/{name}"

    def record_path(self, name: str, number: int) -> str:
        """Return the path of a record of a group or an entity."""
        return self.path(f"versions/{name}/{number}")


def spell(record: SchemaVersion | StorageRecord, content: Mapping[str, Any]) -> bytes:
    """Return a record as its node holds it."""
    whole = {"fingerprint": f"{record.fingerprint:08x}", **content}
    return orjson.dumps(whole, option=orjson.OPT_INDENT_2)


def _whole_record(content: bytes | None, name: str, number: int) -> dict[str, Any]:
    if content is None:
        raise ValueError(f"record {number} of '{name}' is missing")
    return parsed(content)


def _require_print(record: SchemaVersion | StorageRecord, written: Mapping[str, Any]) -> None:
    if record.fingerprint != int(written["fingerprint"], 16):
        name = record.group if isinstance(record, SchemaVersion) else record.entity
        raise ValueError(f"record {record.number} of '{name}' was changed")


def parsed(content: bytes) -> dict[str, Any]:
    """Parse a node. Raises `ValueError` for what is no JSON object."""
    found = orjson.loads(content)
    if not isinstance(found, dict):
        raise ValueError("it is not a JSON object")
    return found
