"""The catalog in ZooKeeper: every replica hears of a revision at once, and publishing is atomic.

    ROOT/current                        the number of the live revision, and the identity
    ROOT/revisions/<n>                  its objects by kind, name and digest; what it changed
    ROOT/objects/<kind>/<name>/<digest> an object as JSON; never changed
    ROOT/versions/<group>/<n>           a schema version: features in order, and a fingerprint
    ROOT/versions/<entity>/<n>          how rows are stored, and a fingerprint

Of two who publish at once one wins: the new revision and the move of `current`, which must
still be what it was, are one transaction. While ZooKeeper is away the last revision that was seen
stays.
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
    at_home,
    check_items,
    in_request,
    lost_catalog,
    names_of_records,
    new_identity,
    record_of,
)
from kirana.catalog.schema_records import features_record
from kirana.catalog.snapshot import Catalog
from kirana.catalog.sources import SourceFiles, Sources
from kirana.catalog.storage_records import record_of as storage_record
from kirana.catalog.validation import validate
from kirana.catalog.zookeeper_nodes import ZookeeperNodes, parsed, spell
from kirana.catalog.zookeeper_session import ZookeeperSession
from kirana.errors import CatalogError, ConfigurationError, Conflict, Problem, Unavailable, Unknown
from kirana.revision import NO_REVISION, Revision
from kirana.urls import option_of, split

DEFAULT_SESSION_S = 10.0
_HOST = re.compile(r"[^:@]+:[0-9]{1,5}")

PRUNE_EVERY = 20
"""Look for objects that no kept revision names once per this many revisions."""


class ZookeeperCatalog:
    """Implements `CatalogBackend` at `zk://host:port,host:port/root[?session_timeout=seconds]`.

    `source` is the folder that `check` and `publish` read. Of revisions the last `kept` stay.
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
                f"catalog: '{url}' is not like zk://host:port/root", field="catalog"
            )
        self._where = f"zk://{parts.netloc}{self._root}"
        self._session = ZookeeperSession(
            parts.netloc, self._where, _session_s(url), self._path("current"), self._hear
        )
        self._nodes = ZookeeperNodes(self._session, self._root)
        self._source = source
        self._checks = checks
        self._loaded: Catalog | None = None
        self._loading = threading.Lock()
        self._kept = kept
        if not all(_HOST.fullmatch(each) for each in parts.netloc.split(",")):
            raise ConfigurationError(
                f"catalog: '{parts.netloc}' is not a list of host:port", field="catalog"
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
            # the records of all others are those of the live revision
            names = names_of_records(put)
            written = before.history.without(names).joined(self._written(live, names))
            where, stored = in_request(put), before.storage
            checked = check_items(items, where, written, stored, self._checks, before, before)
            return self._make_live(live, before, stat, checked)

    def history(self, limit: int) -> list[RevisionRecord]:
        """See `CatalogPublisher`."""
        live = self.current().number
        newest = range(live, max(live - limit, 0), -1)
        manifests = self._session.read_all([self._revision_path(number) for number in newest])
        found = []
        for each in manifests:
            # one that is damaged is of no use here, and hides none of the others
            with suppress(ValueError, KeyError, TypeError):
                if each is not None:
                    found.append(RevisionRecord(**parsed(each)["about"]))
        return found

    def current(self) -> Revision:
        """Return the live revision, the last that was heard of where ZooKeeper is away.

        Raises `Unavailable` if it was away from the beginning.
        """
        self._session.client()
        return self._live

    def away_since(self) -> float | None:
        """See `CatalogSource`; a server that came back empty is away too."""
        return self._session.away_since() or self._empty_since

    def load(self, revision: Revision) -> Catalog:
        """See `CatalogSource`. What has not changed since the last one that was loaded is kept."""
        with self._loading:
            if self._loaded is None or self._loaded.revision != revision:
                self._loaded = self._load(revision, self._loaded)
            return self._loaded

    def _load(self, revision: Revision, loaded: Catalog | None) -> Catalog:
        (content,) = self._session.read_all([self._revision_path(revision.number)])
        if content is None:
            raise Unknown("revision", str(revision), [str(self.current())])
        where = self._revision_path(revision.number)
        try:
            manifest = parsed(content)
            items = self._nodes.read_objects(manifest["objects"])
            history = History(
                self._nodes.read_versions(revision.catalog, manifest["versions"]),
                # what was published before there were records, or identities, has none
                self._nodes.read_storage(manifest.get("storage", {})),
            )
            identity = manifest.get("catalog", "")
        except (AttributeError, ValueError, KeyError, TypeError, ValidationError) as error:
            raise CatalogError([Problem(f"this is not a revision: {error}", where)]) from None
        if identity != revision.catalog:
            raise Unknown("revision", f"{revision} of catalog {revision.catalog}", [])
        if loaded is not None and loaded.revision.catalog != identity:
            # another history, of other records
            loaded = None
        checks = self._checks.of_published()
        validated = validate(items, at_home(items.values(), where), history, checks, loaded)
        return validated.catalog.at(revision)

    def close(self) -> None:
        """See `CatalogBackend`."""
        self._session.close()

    def _read_source(self) -> Sources:
        if self._source is None:
            raise ConfigurationError("a catalog in ZooKeeper is published from a folder")
        sources = SourceFiles(self._source).read()
        if not sources.located:
            raise CatalogError([Problem("the folder defines no objects", str(self._source))])
        return sources

    def _check(self, live: Catalog | None, revision: Revision, *, trusted: bool = False) -> Checked:
        """Validate the source; of a `trusted` live revision, what has not changed is valid."""
        sources = self._read_source()
        items = sources.items()
        stored = self._nodes.published_storage(revision)
        names = names_of_records(items)
        written = self._written(revision, names | stored.keys())
        before = live if trusted else None
        where = sources.document
        return check_items(items, where, written, stored, self._checks, before, live)

    def _written(self, revision: Revision, names: Collection[str]) -> History:
        """Read all records of groups and entities, also of those that were deleted."""
        groups = [name for name in names if "." in name]
        entities = [name for name in names if "." not in name]
        return History(
            self._nodes.read_versions(revision.catalog, self._nodes.counts(groups)),
            self._nodes.read_storage(self._nodes.counts(entities)),
        )

    def _expect(self, revision: int | None) -> tuple[Revision, ZnodeStat | None]:
        """Return the live revision as ZooKeeper has it now, and the state of its node."""
        where = self._path("current")
        try:
            data, stat = self._session.ask(lambda client: client.get_async(where))
        except NoNodeError:
            live, stat = NO_REVISION, None
        else:
            found = _parsed_current(data)
            if found is None:
                raise CatalogError([Problem(f"{data[:20]!r} is not a revision number", where)])
            live = found
        if revision is not None and live.number != revision:
            raise Conflict(f"revision {live} is live, not {revision}", field="expected_revision")
        return live, stat

    def _make_live(
        self, live: Revision, before: Catalog | None, stat: ZnodeStat | None, checked: Checked
    ) -> Published:
        catalog, added, models = checked.catalog, checked.added, self._checks.models
        identity = live.catalog or new_identity()
        if before is not None and not checked.changed and not added:
            if models is not None:
                # copies may have been lost
                models.pin(identity, live.number, catalog.models.values())
            return Published(live, False, checked)
        number = live.number + 1
        if models is not None:
            models.pin(identity, number, catalog.models.values())
        # what is never changed can be written beforehand: nobody sees it before the revision
        known = self._nodes.last_objects if before is not None else set()
        objects = [self._nodes.write_object(each, known) for each in catalog.all_items()]
        token = uuid.uuid4().hex
        about = record_of(number, checked.changed, catalog)
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
        self._follow(revision)
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
        self._nodes.check_size(manifest, f"revision {revision}")
        transaction = self._session.client().transaction()
        for version in added.versions:
            path = self._nodes.record_path(version.group, version.number)
            transaction.create(path, spell(version, {"features": features_record(version)}))
        for record in added.storage:
            path = self._nodes.record_path(record.entity, record.number)
            transaction.create(path, spell(record, storage_record(record)))
        transaction.create(self._revision_path(revision.number), manifest)
        current = f"{revision.number} {revision.catalog}".encode()
        if stat is None:
            transaction.create(self._path("current"), current)
        else:
            transaction.set_data(self._path("current"), current, version=stat.version)
        try:
            results = self._session.ask(lambda _: transaction.commit_async())
        except Unavailable as error:
            if not self._has_token(revision.number, token):
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

    def _prune(self, revision: Revision) -> None:
        """Remove the revisions before the last ones, and what only they had.

        The revision is live already: what can't be removed now is removed after the next one.
        """
        oldest = revision.number - self._kept + 1
        with suppress(Unavailable):
            numbers = [int(each) for each in self._session.children(self._path("revisions"))]
            for number in numbers:
                if number < oldest:
                    self._nodes.remove(self._revision_path(number))
            if revision.number % PRUNE_EVERY == 0:
                self._nodes.prune_objects([number for number in numbers if number >= oldest])
        if self._checks.models is not None:
            self._checks.models.prune(revision.catalog, oldest)

    def _has_token(self, number: int, token: str) -> bool:
        """Whether a revision is there whose publishing was not answered, and by whom."""
        try:
            (found,) = self._session.read_all([self._revision_path(number)])
        except Unavailable:
            return False
        return found is not None and parsed(found).get("token") == token

    def _load_or_none(self, revision: Revision) -> Catalog | None:
        """Return the live revision; None where there is none, or one that nobody can read."""
        try:
            return self.load(revision) if revision.number else None
        except (CatalogError, Unknown):
            return None

    def _hear(self, data: bytes | None) -> None:
        found = _parsed_current(data or b"")
        if found is not None:
            self._live, self._empty_since = found, None
        elif self._live != NO_REVISION and self._empty_since is None:
            self._empty_since = time.time()

    def _follow(self, published: Revision) -> None:
        """Take what was published here for live, unless something newer was heard of."""
        live = self._live
        if published.catalog != live.catalog or published.number > live.number:
            self._live, self._empty_since = published, None

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _revision_path(self, number: int) -> str:
        return self._path(f"revisions/{number}")


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
            f"catalog: session_timeout must be from 0.5 to 600 seconds, not '{text}'",
            field="catalog",
        )
    return seconds


def _parsed_current(data: bytes) -> Revision | None:
    number, _, identity = data.decode(errors="replace").partition(" ")
    return Revision(identity, int(number)) if number.isdecimal() else None
