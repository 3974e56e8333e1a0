"""The catalog in ZooKeeper: every replica hears of a revision at once, and publishing is atomic.

    ROOT/current                        the number of the live revision
    ROOT/revisions/<n>                  its objects by kind, name and digest; what it changed
    ROOT/objects/<kind>/<name>/<digest> an object as JSON; never changed
    ROOT/versions/<group>/<n>           a schema version: labels in order, and a fingerprint

Of two who publish at once one wins: the new revision and the move of `current`, which must
still be what it was, are one transaction. While ZooKeeper is away the last revision that was seen
stays.
"""

from __future__ import annotations

import hashlib
import logging
import re
import threading
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote

import orjson
from kazoo.client import KazooClient
from kazoo.exceptions import (
    BadVersionError,
    ConnectionLoss,
    KazooException,
    NodeExistsError,
    NoNodeError,
)
from kazoo.handlers.threading import KazooTimeoutError
from kazoo.protocol.states import ZnodeStat
from pydantic import ValidationError

from kirana.catalog.changes import Change, RevisionRecord, apply_change
from kirana.catalog.documents import read_documents
from kirana.catalog.objects import CatalogObject
from kirana.catalog.publishing import (
    Published,
    added_versions,
    read_object,
    record_of,
    serialize,
)
from kirana.catalog.schema_records import features_record, parse_version
from kirana.catalog.snapshot import Catalog
from kirana.catalog.validation import Placed, Signatures, parse_documents, validate
from kirana.errors import (
    CatalogError,
    ConfigurationError,
    Conflict,
    Problem,
    Unavailable,
    Unknown,
)
from kirana.schema import SchemaVersion, spelled
from kirana.stores.url import option_of, split

T = TypeVar("T")

DEFAULT_SESSION_S = 10.0
_HOST = re.compile(r"[^:@]+:[0-9]{1,5}")
ANSWER_S = 5.0
"""How long an answer of ZooKeeper is waited for."""

MAX_NODE_BYTES = 1_000_000
"""ZooKeeper's own limit is 1 MiB, of the node and its path."""

logging.getLogger("kazoo").setLevel(logging.ERROR)


class ZookeeperCatalog:
    """Implements `CatalogPlace` at `zk://host:port,host:port/root[?session_timeout=seconds]`.

    `source` is the folder that `check` and `publish` read; without `signatures` the files of
    models are not looked into.
    """

    def __init__(
        self, url: str, source: Path | None = None, signatures: Signatures | None = None
    ) -> None:
        parts = split(url, setting="catalog")
        self._root = unquote(parts.path).rstrip("/")
        if parts.scheme != "zk" or not parts.netloc or not self._root:
            raise ConfigurationError(
                f"catalog: '{url}' is not like zk://host:port/root", field="catalog"
            )
        self._where = f"zk://{parts.netloc}{self._root}"
        self._hosts = parts.netloc
        self._session_s = _session_s(url)
        self._source = source
        self._signatures = signatures
        self._client: KazooClient | None = None
        if not all(_HOST.fullmatch(each) for each in parts.netloc.split(",")):
            raise ConfigurationError(
                f"catalog: '{parts.netloc}' is no list of host:port", field="catalog"
            )
        self._starting = threading.Lock()
        self._publishing = threading.Lock()
        self._live: int | None = None
        self._objects: dict[str, Placed] = {}
        self._versions: dict[tuple[str, int], SchemaVersion] = {}

    def check(self) -> tuple[Catalog, tuple[SchemaVersion, ...]]:
        return self._validate(self._read_source())

    def publish(self, *, expected_revision: int | None = None) -> Published:
        placed = self._read_source()
        with self._publishing:
            live, stat = self._expect(expected_revision)
            return self._make_live(live, stat, *self._validate(placed))

    def publish_change(self, change: Change, expected_revision: int | None) -> int:
        with self._publishing:
            live, stat = self._expect(expected_revision)
            placed, _ = apply_change(self.load(live) if live else None, change)
            return self._make_live(live, stat, *self._validate(placed)).revision

    def history(self, limit: int) -> list[RevisionRecord]:
        newest = range(self.current(), max(self.current() - limit, 0), -1)
        manifests = self._read_all([self._revision_path(number) for number in newest])
        found = []
        for each in manifests:
            # one that is damaged is of no use here, and hides none of the others
            with suppress(ValueError, KeyError, TypeError):
                if each is not None:
                    found.append(RevisionRecord(**_parsed(each)["about"]))
        return found

    def current(self) -> int:
        """Return the live revision, the last that was heard of where ZooKeeper is away.

        Raises `Unavailable` if it was away from the beginning.
        """
        self._started()
        return self._live or 0

    def load(self, revision: int) -> Catalog:
        (content,) = self._read_all([self._revision_path(revision)])
        if content is None:
            raise Unknown("revision", str(revision), [str(self.current())])
        where = self._revision_path(revision)
        try:
            manifest = _parsed(content)
            placed = self._load_objects(manifest["objects"])
            versions = self._load_versions(manifest["versions"])
        except (AttributeError, ValueError, KeyError, TypeError, ValidationError) as error:
            raise CatalogError([Problem(f"this is no revision: {error}", where)]) from None
        catalog = validate(placed, versions, None)
        return Catalog(**{**vars(catalog), "revision": revision})

    def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.stop()
            client.close()

    def _read_source(self) -> list[Placed]:
        if self._source is None:
            raise ConfigurationError("a catalog in ZooKeeper is published from a folder")
        placed = parse_documents(read_documents(self._source))
        if not placed:
            raise CatalogError([Problem("its files hold no object", str(self._source))])
        return placed

    def _validate(self, placed: Sequence[Placed]) -> tuple[Catalog, tuple[SchemaVersion, ...]]:
        """Check against all versions of the groups, also those that no live group has."""
        names = {each.object.name for each in placed if each.object.kind == "feature_group"}
        counts = {name: len(self._children(f"versions/{name}")) for name in names}
        versions = self._load_versions(counts)
        catalog = validate(placed, versions, self._signatures)
        return catalog, added_versions(catalog, versions)

    def _expect(self, revision: int | None) -> tuple[int, ZnodeStat | None]:
        """Return the live revision as ZooKeeper has it now, and the state of its node."""
        try:
            data, stat = self._ask(lambda client: client.get_async(self._path("current")))
        except NoNodeError:
            data, stat = b"0", None
        if not data.isdigit():
            where = self._path("current")
            raise CatalogError([Problem(f"{data[:20]!r} is no number of a revision", where)])
        live = int(data)
        if revision is not None and live != revision:
            raise Conflict(f"revision {live} is live, not {revision}", field="expected_revision")
        return live, stat

    def _make_live(
        self,
        live: int,
        stat: ZnodeStat | None,
        catalog: Catalog,
        added: tuple[SchemaVersion, ...],
    ) -> Published:
        before = self._load_or_none(live)
        if before is not None and not added and serialize(before) == serialize(catalog):
            return Published(live, False, ())
        revision = live + 1
        # what is never changed can be written beforehand: nobody sees it before the revision
        objects = [self._write_object(each) for each in catalog.objects]
        token = uuid.uuid4().hex
        about = record_of(revision, before.objects if before else (), catalog.objects)
        counts = {name: len(group.versions) for name, group in catalog.groups.items()}
        manifest = {"objects": objects, "versions": counts, "about": about, "token": token}
        for version in added:
            self._ensure(f"versions/{version.group}")
        self._ensure("revisions")
        self._commit(revision, stat, orjson.dumps(manifest), added, token)
        self._live = max(self._live or 0, revision)
        return Published(revision, True, added)

    def _commit(
        self,
        revision: int,
        stat: ZnodeStat | None,
        manifest: bytes,
        added: Iterable[SchemaVersion],
        token: str,
    ) -> None:
        self._check_size(manifest, f"revision {revision}")
        transaction = self._started().transaction()
        for version in added:
            transaction.create(self._version_path(version.group, version.number), _spell(version))
        transaction.create(self._revision_path(revision), manifest)
        number = str(revision).encode()
        if stat is None:
            transaction.create(self._path("current"), number)
        else:
            transaction.set_data(self._path("current"), number, version=stat.version)
        try:
            results = self._ask(lambda _: transaction.commit_async())
        except Unavailable as error:
            if not self._has_token(revision, token):
                raise Unavailable(
                    f"{error.message}; whether revision {revision} was published, or still will "
                    "be, is not known: look before you publish again"
                ) from error
            return
        for result in results:
            if isinstance(result, BadVersionError | NodeExistsError):
                raise Conflict(
                    f"revision {revision} was published by another meanwhile: look at it, and "
                    "publish again",
                    field="expected_revision",
                )
        failed = [each for each in results if isinstance(each, Exception)]
        if failed:
            raise Unavailable(f"{self._where} refused revision {revision}: {failed[0]!r}")

    def _has_token(self, revision: int, token: str) -> bool:
        """Whether a revision is there whose publishing was not answered, and by whom."""
        try:
            (found,) = self._read_all([self._revision_path(revision)])
        except Unavailable:
            return False
        return found is not None and _parsed(found).get("token") == token

    def _load_or_none(self, revision: int) -> Catalog | None:
        """Return the live revision; None where there is none, or one that nobody can read."""
        try:
            return self.load(revision) if revision else None
        except (CatalogError, Unknown):
            return None

    def _load_objects(self, names: Sequence[str]) -> list[Placed]:
        known = self._objects
        unread = [name for name in names if name not in known]
        contents = self._read_all([self._path(f"objects/{name}") for name in unread])
        read: dict[str, Placed] = {}
        for name, content in zip(unread, contents, strict=True):
            if content is None:
                raise ValueError(f"its object {name} is missing")
            read[name] = read_object(_parsed(content), self._path(f"objects/{name}"))
        # those of the last revision are kept, for the next one shares most of them
        found = {name: read[name] if name in read else known[name] for name in names}
        self._objects = found
        return list(found.values())

    def _load_versions(self, counts: Mapping[str, int]) -> dict[str, list[SchemaVersion]]:
        wanted = [(group, n) for group, count in counts.items() for n in range(1, count + 1)]
        unread = [each for each in wanted if each not in self._versions]
        contents = self._read_all([self._version_path(*each) for each in unread])
        for (group, number), content in zip(unread, contents, strict=True):
            if content is None:
                raise ValueError(f"schema version {number} of '{group}' is missing")
            record = _parsed(content)
            version = parse_version(group, number, record["features"])
            if version.fingerprint != int(record["fingerprint"], 16):
                raise ValueError(f"schema version {number} of '{group}' was changed")
            self._versions[group, number] = version
        return {
            group: [self._versions[group, n] for n in range(1, count + 1)]
            for group, count in counts.items()
            if count
        }

    def _write_object(self, each: CatalogObject) -> str:
        """Store an object under its digest, if it isn't there; return its name below `objects`."""
        record = spelled(each.model_dump(by_alias=True))
        try:
            content = orjson.dumps(record, option=orjson.OPT_SORT_KEYS)
        except TypeError as error:
            raise CatalogError([Problem(f"a value can't be published: {error}")]) from None
        self._check_size(content, f"{each.kind} '{each.name}'")
        digest = hashlib.blake2b(content, digest_size=8).hexdigest()
        name = f"{each.kind}/{each.name}/{digest}"
        path = self._path(f"objects/{name}")
        with suppress(NodeExistsError):
            self._ask(lambda client: client.create_async(path, content, makepath=True))
        return name

    @staticmethod
    def _check_size(content: bytes, what: str) -> None:
        if len(content) > MAX_NODE_BYTES:
            message = f"{what} takes {len(content)} bytes, a node of ZooKeeper {MAX_NODE_BYTES}"
            raise CatalogError([Problem(message)])

    def _ensure(self, name: str) -> None:
        self._ask(lambda client: client.ensure_path_async(self._path(name)))

    def _children(self, name: str) -> list[str]:
        try:
            found: list[str] = self._ask(lambda c: c.get_children_async(self._path(name)))
        except NoNodeError:
            return []
        return found

    def _read_all(self, paths: Sequence[str]) -> list[bytes | None]:
        """Read nodes, all at once on the wire; None for one that isn't there."""
        client = self._started()
        asked = [client.get_async(path) for path in paths]
        found: list[bytes | None] = []
        for each in asked:
            try:
                found.append(self._answer(each)[0])
            except NoNodeError:
                found.append(None)
        return found

    def _ask(self, call: Callable[[KazooClient], Any]) -> Any:
        return self._answer(call(self._started()))

    def _answer(self, asked: Any) -> Any:
        """Wait for an answer. Raises `Unavailable`, and what says that a node is or isn't there."""
        try:
            return asked.get(timeout=ANSWER_S)
        except (NoNodeError, NodeExistsError, BadVersionError):
            raise
        except (KazooException, KazooTimeoutError, ConnectionLoss) as error:
            reason = str(error) or type(error).__name__
            raise Unavailable(f"{self._where} does not answer: {reason}") from error

    def _started(self) -> KazooClient:
        return self._client or self._start()

    def _start(self) -> KazooClient:
        """Connect, and hear of every new revision from then on, through sessions that expire."""
        with self._starting:
            if self._client is not None:
                return self._client
            client = KazooClient(hosts=self._hosts, timeout=self._session_s)
            try:
                client.start(timeout=ANSWER_S)
                # a watch would wait for a first answer without end
                with suppress(NoNodeError):
                    client.get_async(self._path("current")).get(timeout=ANSWER_S)
                client.DataWatch(self._path("current"), self._hear)
            except (KazooTimeoutError, KazooException) as error:
                client.stop()
                client.close()
                raise Unavailable(f"{self._where} does not answer: {error}") from error
            self._client = client
            return client

    def _hear(self, data: bytes | None, stat: ZnodeStat | None) -> None:
        if data is not None and data.isdigit():
            self._live = int(data)

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _revision_path(self, revision: int) -> str:
        return self._path(f"revisions/{revision}")

    def _version_path(self, group: str, number: int) -> str:
        return self._path(f"versions/{group}/{number}")


def _session_s(url: str) -> float:
    text = option_of(url, "session_timeout")
    if text is None:
        return DEFAULT_SESSION_S
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.5 <= seconds <= 600:
        raise ConfigurationError(
            f"catalog: session_timeout is 0.5 to 600 seconds, not '{text}'", field="catalog"
        )
    return seconds


def _spell(version: SchemaVersion) -> bytes:
    record = {
        "fingerprint": f"{version.fingerprint:08x}",
        "features": features_record(version),
    }
    return orjson.dumps(record, option=orjson.OPT_INDENT_2)


def _parsed(content: bytes) -> dict[str, Any]:
    parsed = orjson.loads(content)
    if not isinstance(parsed, dict):
        raise ValueError("it is no JSON object")
    return parsed
