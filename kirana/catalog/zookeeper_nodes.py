"""The nodes of a catalog in ZooKeeper: objects by digest, and append-only records.

The content of these nodes never changes. A revision lists the names of its objects, and the number
of records per group and entity.
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
from kirana.catalog.records import Records, record_title
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
"""The most bytes of data in a node. By default, ZooKeeper limits requests to 1 MiB."""

UNUSED_MS = 3_600_000
"""How long unused objects are kept, in milliseconds. A publisher may be about to use them."""


class ZookeeperNodes:
    """Reads and writes of the nodes below `root`.

    Schema versions, and the objects of the last revision that was read, are cached.
    """

    def __init__(self, session: ZookeeperSession, root: str) -> None:
        self._session = session
        self._root = root
        self._identity = ""
        self._objects: dict[str, Item] = {}
        self._versions: dict[tuple[str, int], SchemaVersion] = {}

    @property
    def last_objects(self) -> set[str]:
        """The names of the objects of the last revision that was read."""
        return set(self._objects)

    def published_storage(self, revision: Revision) -> Storage:
        """Return how a revision stores rows, even if the revision is not valid.

        Return {} if its nodes are missing or can't be parsed.
        """
        (content,) = self._session.read_all([self.path(f"revisions/{revision.number}")])
        try:
            manifest = parse_json(content or b"")
            if "storage" in manifest:
                return self.read_storage(manifest["storage"])
            paths = [self.path(f"objects/{name}") for name in manifest["objects"]]
            return storage_of(
                parse_json(object_content or b"")
                for object_content in self._session.read_all(paths)
            )
        except (AttributeError, ValueError, KeyError, TypeError):
            return {}

    def counts(self, names: Iterable[str]) -> dict[str, int]:
        """Return the number of records by group or entity."""
        return {name: len(self._session.children(self.path(f"versions/{name}"))) for name in names}

    def read_objects(self, names: Sequence[str]) -> dict[Key, Item]:
        """Return the objects of one revision.

        Raise `ValueError`, `KeyError` or `TypeError` if one is missing or not valid.
        """
        cached = self._objects
        unread = [name for name in names if name not in cached]
        contents = self._session.read_all([self.path(f"objects/{name}") for name in unread])
        new_items: dict[str, Item] = {}
        for name, content in zip(unread, contents, strict=True):
            if content is None:
                raise ValueError(f"object '{name}' is missing")
            new_items[name] = Item.parse(parse_json(content))
        # Keep the objects of this revision only. The next one will share most of them.
        objects = {name: new_items[name] if name in new_items else cached[name] for name in names}
        self._objects = objects
        return {item.key: item for item in objects.values()}

    def read_versions(
        self, identity: str, counts: Mapping[str, int]
    ) -> dict[str, Records[SchemaVersion]]:
        """Return the first `counts[group]` schema versions for each group in `counts`.

        `identity` is the identity of the catalog. Raise `ValueError`, `KeyError` or `TypeError` if
        a version is missing or was changed.
        """
        if identity != self._identity:
            # Another catalog may have different versions with the same numbers.
            self._identity, self._versions = identity, {}
        requested = [(group, n) for group, count in counts.items() for n in range(1, count + 1)]
        unread = [version_key for version_key in requested if version_key not in self._versions]
        contents = self._session.read_all(
            [self.record_path(*version_key) for version_key in unread]
        )
        for (group, number), content in zip(unread, contents, strict=True):
            record = _parsed_record(content, group, number)
            version = parse_version(group, number, record["features"])
            _require_fingerprint(version, record)
            self._versions[group, number] = version
        return {
            group: version_records([self._versions[group, n] for n in range(1, count + 1)])
            for group, count in counts.items()
            if count
        }

    def read_storage(self, counts: Mapping[str, int]) -> dict[str, Records[StorageRecord]]:
        """Return the first `counts[entity]` storage records for each entity in `counts`.

        Raise the same errors as `read_versions`, or `AttributeError`.
        """
        requested = [(entity, n) for entity, count in counts.items() for n in range(1, count + 1)]
        contents = self._session.read_all(
            [self.record_path(*record_key) for record_key in requested]
        )
        by_entity: dict[str, list[StorageRecord]] = {}
        for (entity, number), content in zip(requested, contents, strict=True):
            record = _parsed_record(content, entity, number)
            storage = parse_record(entity, number, record)
            _require_fingerprint(storage, record)
            by_entity.setdefault(entity, []).append(storage)
        return {entity: storage_records(records) for entity, records in by_entity.items()}

    def write_object(self, item: Item, known: set[str]) -> str:
        """Write an object unless its name is in `known`, and return its name below `objects`.

        `known` are the names of objects in the live revision. Raise `CatalogError` if the object is
        too large for a node.
        """
        kind, object_name = item.key
        content = item.raw
        self.check_size(content, f"{kind} '{object_name}'")
        digest = hashlib.blake2b(content, digest_size=8).hexdigest()
        name = f"{kind}/{object_name}/{digest}"
        if name in known:
            return name
        path = self.path(f"objects/{name}")
        try:
            self._session.call(lambda client: client.create_async(path, content, makepath=True))
        except NodeExistsError:
            # This renews the mtime of the node, so that `prune_objects` keeps it for `UNUSED_MS`.
            self._session.call(lambda client: client.set_async(path, content))
        return name

    @staticmethod
    def check_size(content: bytes, what: str) -> None:
        """Raise `CatalogError`, which names `what`, if `content` is too large for a node."""
        if len(content) > MAX_NODE_BYTES:
            message = (
                f"{what} has {len(content)} bytes, the limit of a ZooKeeper node is "
                f"{MAX_NODE_BYTES}"
            )
            raise CatalogError([Problem(message)])

    def ensure(self, name: str) -> None:
        """Create a node and its parents, unless they exist."""
        self._session.call(lambda client: client.ensure_path_async(self.path(name)))

    def prune_objects(self, kept: Sequence[int]) -> None:
        """Remove the objects that no revision in `kept` names, unless their nodes are recent."""
        manifests = self._session.read_all([self.path(f"revisions/{number}") for number in kept])
        if None in manifests:
            return  # Another publisher has just removed a revision.
        used = {
            name for manifest in manifests if manifest for name in parse_json(manifest)["objects"]
        }
        root = self.path("objects")
        now_ms = time.time() * 1000
        for kind in self._session.children(root):
            for name in self._session.children(f"{root}/{kind}"):
                for digest in self._session.children(f"{root}/{kind}/{name}"):
                    path = f"{root}/{kind}/{name}/{digest}"
                    if f"{kind}/{name}/{digest}" in used:
                        continue
                    stat = self._session.exists(path)
                    if stat is not None and now_ms - stat.mtime > UNUSED_MS:
                        self.remove(path)

    def remove(self, path: str) -> None:
        """Remove a node. No-op if it does not exist."""
        with suppress(NoNodeError):
            self._session.call(lambda client: client.delete_async(path))

    def path(self, name: str) -> str:
        """Return the path of the node `name` below the root."""
        return f"{self._root}/{name}"

    def record_path(self, name: str, number: int) -> str:
        """Return the path of a record of a group or entity."""
        return self.path(f"versions/{name}/{number}")


def record_json(record: SchemaVersion | StorageRecord, content: Mapping[str, Any]) -> bytes:
    """Return the JSON of a record for its node: its plain values, and its fingerprint."""
    fields = {"fingerprint": f"{record.fingerprint:08x}", **content}
    return orjson.dumps(fields, option=orjson.OPT_INDENT_2)


def _parsed_record(content: bytes | None, name: str, number: int) -> dict[str, Any]:
    if content is None:
        raise ValueError(f"{record_title(name, number)} is missing")
    return parse_json(content)


def _require_fingerprint(record: SchemaVersion | StorageRecord, written: Mapping[str, Any]) -> None:
    if record.fingerprint != int(written["fingerprint"], 16):
        name = record.group if isinstance(record, SchemaVersion) else record.entity
        raise ValueError(f"{record_title(name, record.number)} was changed")


def parse_json(content: bytes) -> dict[str, Any]:
    """Parse the JSON of a node. Raise `ValueError` if it is not a JSON object."""
    value = orjson.loads(content)
    if not isinstance(value, dict):
        raise ValueError("the node has no JSON object")
    return value
