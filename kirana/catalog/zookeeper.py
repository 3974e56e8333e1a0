"""The catalog in ZooKeeper, which notifies all replicas of a new revision at once.

    ROOT/current                        the number of the live revision, and the catalog's identity
    ROOT/revisions/<n>                  a revision: the names of its objects, and what it changed
    ROOT/objects/<kind>/<name>/<digest> an object as JSON, which never changes
    ROOT/versions/<group>/<n>           a schema version: its features in order, and a fingerprint
    ROOT/versions/<entity>/<n>          a storage record, and a fingerprint

A publish creates the revision and sets `current` in one transaction. The transaction fails if
`current` has changed in the meantime, so only one of two concurrent publishes succeeds. While
ZooKeeper does not answer, replicas stay on the last revision that they know of.
"""

from __future__ import annotations

import re
import threading
import time
import uuid
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote

import orjson
from kazoo.exceptions import BadVersionError, NodeExistsError, NoNodeError
from kazoo.protocol.states import ZnodeStat
from pydantic import ValidationError

from kirana.catalog.changes import Change, RevisionRecord, apply_change
from kirana.catalog.checks import NO_CHECKS, Checks
from kirana.catalog.history import Additions, History
from kirana.catalog.publishing import (
    KEPT_REVISIONS,
    Checked,
    Published,
    check_items,
    located_in_file,
    located_in_request,
    lost_catalog,
    names_of_records,
    new_identity,
    revision_record,
)
from kirana.catalog.schema_records import features_record
from kirana.catalog.snapshot import Catalog
from kirana.catalog.sources import SourceFiles, Sources
from kirana.catalog.storage_records import record_of
from kirana.catalog.validation import validate
from kirana.catalog.zookeeper_nodes import ZookeeperNodes, parse_json, record_json
from kirana.catalog.zookeeper_session import ZookeeperSession, session_timeout_s
from kirana.errors import CatalogError, ConfigurationError, Conflict, Problem, Unavailable, Unknown
from kirana.revision import NO_REVISION, Revision
from kirana.urls import split

_HOST = re.compile(r"[^:@]+:[0-9]{1,5}")

PRUNE_EVERY = 20
"""A publish removes unused objects if the number of its revision is a multiple of this number."""


class ZookeeperCatalog:
    """`CatalogBackend` in ZooKeeper. A publish removes all but the last `kept` revisions.

    `url` is `zk://host:port,host:port/root[?session_timeout=seconds]`. `source` is the folder that
    `check` and `publish` read. Both raise `ConfigurationError` if it is None. The constructor
    raises `ConfigurationError` if the URL is not valid.
    """

    def __init__(
        self,
        url: str,
        source: Path | None = None,
        checks: Checks = NO_CHECKS,
        *,
        kept: int = KEPT_REVISIONS,
    ) -> None:
        parts = split(url, setting="catalog")
        self._root = unquote(parts.path).rstrip("/")
        if parts.scheme != "zk" or not parts.netloc or not self._root:
            raise ConfigurationError(
                f"catalog: must be a URL such as zk://host:port/root, not '{url}'", field="catalog"
            )
        self._where = f"zk://{parts.netloc}{self._root}"
        self._session = ZookeeperSession(
            parts.netloc,
            self._where,
            session_timeout_s(url),
            self._path("current"),
            self._current_changed,
        )
        self._nodes = ZookeeperNodes(self._session, self._root)
        self._source = source
        self._checks = checks
        self._loaded: Catalog | None = None
        self._loading = threading.Lock()
        self._kept = kept
        if not all(_HOST.fullmatch(host) for host in parts.netloc.split(",")):
            raise ConfigurationError(
                f"catalog: each address must be host:port, not '{parts.netloc}'", field="catalog"
            )
        self._publishing = threading.Lock()
        self._live = NO_REVISION
        self._empty_since: float | None = None

    def check(self) -> Checked:
        """See `CatalogBackend`."""
        live, _ = self._expect(None)
        return self._check(self._load_or_none(live), live)

    def publish(self, *, expected_revision: int | None = None) -> Published:
        """See `CatalogBackend`."""
        with self._publishing:
            live, stat = self._expect(expected_revision)
            before = self._load_or_none(live)
            return self._make_live(live, before, stat, self._check(before, live, trusted=True))

    def publish_change(self, change: Change, expected_revision: int | None) -> Published:
        """See `CatalogPublisher`."""
        with self._publishing:
            live, stat = self._expect(expected_revision)
            if live == NO_REVISION:
                raise lost_catalog(self._where)
            before = self.load(live)
            items, put = apply_change(before, change)
            # All other groups and entities keep the records of the live revision.
            names = names_of_records(put)
            written = before.history.without(names).joined(self._written(live, names))
            document_of, stored = located_in_request(put), before.storage
            checked = check_items(items, document_of, written, stored, self._checks, before, before)
            return self._make_live(live, before, stat, checked)

    def history(self, limit: int) -> list[RevisionRecord]:
        """See `CatalogPublisher`."""
        live = self.current().number
        newest = range(live, max(live - limit, 0), -1)
        manifests = self._session.read_all([self._revision_path(number) for number in newest])
        records = []
        for content in manifests:
            # Skip a damaged revision, and return the others.
            with suppress(ValueError, KeyError, TypeError):
                if content is not None:
                    records.append(RevisionRecord(**parse_json(content)["about"]))
        return records

    def current(self) -> Revision:
        """Return the live revision, or the last known one while it can't be read.

        Raise `Unavailable` if ZooKeeper has never answered.
        """
        self._session.client()
        return self._live

    def away_since(self) -> float | None:
        """See `CatalogSource`. A catalog that ZooKeeper has lost can't be read, either."""
        return self._session.away_since() or self._empty_since

    def load(self, revision: Revision) -> Catalog:
        """See `CatalogSource`. Share unchanged objects with the revision that was loaded last."""
        with self._loading:
            if self._loaded is None or self._loaded.revision != revision:
                self._loaded = self._load(revision, self._loaded)
            return self._loaded

    def _load(self, revision: Revision, loaded: Catalog | None) -> Catalog:
        """Read a revision. If `loaded` is of the same catalog, share its unchanged objects."""
        (content,) = self._session.read_all([self._revision_path(revision.number)])
        if content is None:
            raise Unknown("revision", str(revision), [str(self.current())])
        path = self._revision_path(revision.number)
        try:
            manifest = parse_json(content)
            items = self._nodes.read_objects(manifest["objects"])
            history = History(
                self._nodes.read_versions(revision.catalog, manifest["versions"]),
                # Early versions of Kirana wrote no storage records and no identity.
                self._nodes.read_storage(manifest.get("storage", {})),
            )
            identity = manifest.get("catalog", "")
        except (AttributeError, ValueError, KeyError, TypeError, ValidationError) as error:
            raise CatalogError([Problem(f"this revision is damaged: {error}", path)]) from None
        if identity != revision.catalog:
            known = f"{revision} of catalog {identity}"
            raise Unknown("revision", f"{revision} of catalog {revision.catalog}", [known])
        if loaded is not None and loaded.revision.catalog != identity:
            # Another catalog may have different records, so nothing is shared.
            loaded = None
        checks = self._checks.of_published()
        validated = validate(items, located_in_file(items.values(), path), history, checks, loaded)
        return validated.catalog.at(revision)

    def close(self) -> None:
        """See `CatalogBackend`."""
        self._session.close()

    def _read_source(self) -> Sources:
        """Read the source folder.

        Raise `ConfigurationError` if no folder is given. Raise `CatalogError` if the folder defines
        no objects or is not valid.
        """
        if self._source is None:
            raise ConfigurationError("the folder with the source files of the catalog is not given")
        sources = SourceFiles(self._source).read()
        if not sources.located:
            raise CatalogError([Problem("the folder defines no objects", str(self._source))])
        return sources

    def _check(self, live: Catalog | None, revision: Revision, *, trusted: bool = False) -> Checked:
        """Validate the source. If `live` is `trusted`, do not check its unchanged objects again."""
        sources = self._read_source()
        items = sources.items()
        stored = self._nodes.published_storage(revision)
        names = names_of_records(items)
        written = self._written(revision, names | stored.keys())
        before = live if trusted else None
        document_of = sources.document
        return check_items(items, document_of, written, stored, self._checks, before, live)

    def _written(self, revision: Revision, names: Collection[str]) -> History:
        """Return all records of the groups and entities in `names`, even of deleted ones."""
        groups = [name for name in names if "." in name]
        entities = [name for name in names if "." not in name]
        return History(
            self._nodes.read_versions(revision.catalog, self._nodes.counts(groups)),
            self._nodes.read_storage(self._nodes.counts(entities)),
        )

    def _expect(self, revision: int | None) -> tuple[Revision, ZnodeStat | None]:
        """Return the live revision from ZooKeeper, and the state of the node `current`.

        Raise `Conflict` if `revision` is given and is not live. Raise `CatalogError` if the node
        does not hold the number of a revision.
        """
        path = self._path("current")
        try:
            data, stat = self._session.call(lambda client: client.get_async(path))
        except NoNodeError:
            live, stat = NO_REVISION, None
        else:
            parsed_revision = _parsed_current(data)
            if parsed_revision is None:
                text = data[:20].decode(errors="replace")
                raise CatalogError([Problem(f"'{text}' is not a revision number", path)])
            live = parsed_revision
        if revision is not None and live.number != revision:
            raise Conflict(f"revision {live} is live, not {revision}", field="expected_revision")
        return live, stat

    def _make_live(
        self, live: Revision, before: Catalog | None, stat: ZnodeStat | None, checked: Checked
    ) -> Published:
        """Publish a checked catalog, unless nothing has changed.

        `before` is the catalog of the `live` revision, or None if the revision can't be read.
        `stat` is the state of the node `current`, which must not have changed since, or None if the
        node did not exist.
        """
        catalog, added, models = checked.catalog, checked.added, self._checks.models
        if self._checks.tables is not None:
            # Two publishers must not make the same table at once.
            with self._session.client().Lock(self._path("tables")):
                self._checks.tables.ensure(before, catalog)
        identity = live.catalog or new_identity()
        if before is not None and not checked.changed and not added:
            if models is not None:
                # This restores lost copies of model files.
                models.pin(identity, live.number, catalog.models.values())
            return Published(live, False, checked)
        number = live.number + 1
        if models is not None:
            models.pin(identity, number, catalog.models.values())
        # Objects need not be part of the transaction: they never change, and replicas read only
        # objects that a revision names.
        existing_objects = self._nodes.last_objects if before is not None else set()
        objects = [self._nodes.write_object(item, existing_objects) for item in catalog.all_items()]
        token = uuid.uuid4().hex
        about = revision_record(number, checked.changed, catalog)
        manifest = {
            "catalog": identity,
            "objects": objects,
            "versions": {name: len(versions) for name, versions in catalog.versions.items()},
            "storage": {name: len(records) for name, records in catalog.storage.items()},
            "about": about,
            "token": token,
        }
        for name in (*(v.group for v in added.versions), *(r.entity for r in added.storage)):
            self._nodes.ensure(f"versions/{name}")
        self._nodes.ensure("revisions")
        revision = Revision(identity, number)
        self._commit(revision, stat, orjson.dumps(manifest), added, token)
        self._set_live(revision)
        self._prune(revision)
        return Published(revision, True, checked)

    def _commit(
        self,
        revision: Revision,
        stat: ZnodeStat | None,
        manifest: bytes,
        added: Additions,
        token: str,
    ) -> None:
        """Write new records, the revision and `current` in one transaction.

        Raise `CatalogError` if the manifest is too large, and `Conflict` if another publisher was
        first. If no answer arrives, raise `Unavailable`, unless the revision exists with `token`.
        Raise `Unavailable` also if ZooKeeper refuses the transaction for another reason.
        """
        self._nodes.check_size(manifest, f"revision {revision}")
        transaction = self._session.client().transaction()
        for version in added.versions:
            path = self._nodes.record_path(version.group, version.number)
            transaction.create(path, record_json(version, {"features": features_record(version)}))
        for record in added.storage:
            path = self._nodes.record_path(record.entity, record.number)
            transaction.create(path, record_json(record, record_of(record)))
        transaction.create(self._revision_path(revision.number), manifest)
        current = f"{revision.number} {revision.catalog}".encode()
        if stat is None:
            transaction.create(self._path("current"), current)
        else:
            transaction.set_data(self._path("current"), current, version=stat.version)
        try:
            results = self._session.call(lambda _: transaction.commit_async())
        except Unavailable as error:
            if not self._has_token(revision.number, token):
                raise Unavailable(
                    f"{error.message}. Revision {revision} may have been published: check the "
                    "catalog before you publish again"
                ) from error
            return
        for result in results:
            if isinstance(result, BadVersionError | NodeExistsError):
                raise Conflict(
                    f"another publisher made revision {revision} in the meantime: check it, then "
                    "publish again",
                    field="expected_revision",
                )
        errors = [result for result in results if isinstance(result, Exception)]
        if errors:
            raise Unavailable(f"{self._where} refused revision {revision}: {errors[0]!r}")

    def _prune(self, revision: Revision) -> None:
        """Remove all but the last `kept` revisions.

        Every `PRUNE_EVERY` revisions, remove unused objects, too. Ignore `Unavailable` from
        ZooKeeper, because the new revision is already live. A later publish tries again.
        """
        oldest = revision.number - self._kept + 1
        with suppress(Unavailable):
            numbers = [int(name) for name in self._session.children(self._path("revisions"))]
            for number in numbers:
                if number < oldest:
                    self._nodes.remove(self._revision_path(number))
            if revision.number % PRUNE_EVERY == 0:
                self._nodes.prune_objects([number for number in numbers if number >= oldest])
        if self._checks.models is not None:
            self._checks.models.prune(revision.catalog, oldest)

    def _has_token(self, number: int, token: str) -> bool:
        """Return whether the revision exists and was published with this token.

        Return False if ZooKeeper does not answer.
        """
        try:
            (content,) = self._session.read_all([self._revision_path(number)])
        except Unavailable:
            return False
        return content is not None and parse_json(content).get("token") == token

    def _load_or_none(self, revision: Revision) -> Catalog | None:
        """Return the live revision, or None if there is none, or if it is damaged or not valid."""
        try:
            return self.load(revision) if revision.number else None
        except (CatalogError, Unknown):
            return None

    def _current_changed(self, data: bytes | None) -> None:
        """Handle a change of the node `current`. `data` is None if the node does not exist."""
        revision = _parsed_current(data or b"")
        if revision is not None:
            self._live, self._empty_since = revision, None
        elif self._live != NO_REVISION and self._empty_since is None:
            self._empty_since = time.time()

    def _set_live(self, published: Revision) -> None:
        """Make a revision that was published here the live one, unless a newer one is known."""
        live = self._live
        if published.catalog != live.catalog or published.number > live.number:
            self._live, self._empty_since = published, None

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _revision_path(self, number: int) -> str:
        return self._path(f"revisions/{number}")


def _parsed_current(data: bytes) -> Revision | None:
    number, _, identity = data.decode(errors="replace").partition(" ")
    return Revision(identity, int(number)) if number.isdecimal() else None
