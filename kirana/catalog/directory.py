"""The catalog in a directory: YAML files are the source, `.kirana/revisions/<n>/` what is live.

    DIR/*.yaml                        what people edit
    DIR/versions/<group>/<n>.yaml     schema versions, append-only, to be committed with it
    DIR/versions/<entity>/<n>.yaml    how rows are stored, append-only, to be committed with it
    DIR/.kirana/revisions/<n>/        `catalog.json`: a whole published revision; `changes.json`:
                                      what differs from the one before; `about.json`: when it was
                                      published, and what it changed; `uses.json`: which objects
                                      each one has looked up
    DIR/.kirana/remembered.json       what need not be read again: see `kirana.catalog.remembered`
    DIR/.kirana/CURRENT               the number of the live one and the identity of the catalog,
                                      replaced by a rename

Replicas read only what is published. Publishing is done under a file lock, so that of two at
once the second sees what the first has done.
"""

from __future__ import annotations

import fcntl
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import orjson
from pydantic import ValidationError

from kirana.catalog.changes import Change, RevisionRecord, apply_change
from kirana.catalog.checks import NO_CHECKS, Checks
from kirana.catalog.deltas import Delta, read_delta
from kirana.catalog.documents import Chunk
from kirana.catalog.durable import write_durably
from kirana.catalog.history import History
from kirana.catalog.items import Item, Key, plain
from kirana.catalog.objects import CatalogObject, ModelObject
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
)
from kirana.catalog.record_files import RecordFiles
from kirana.catalog.remembered import (
    Remembered,
    item_digest,
    read_remembered,
    text_digest,
    write_remembered,
)
from kirana.catalog.revision_file import read_revision
from kirana.catalog.revision_folder import RevisionFolder
from kirana.catalog.snapshot import Catalog, by_kind
from kirana.catalog.source_files import rewrite
from kirana.catalog.sources import Located, SourceFiles, Sources
from kirana.catalog.stamps import Stamp
from kirana.catalog.storage_records import Storage
from kirana.catalog.validation import validate
from kirana.errors import CatalogError, Conflict, Problem, Unknown
from kirana.revision import NO_REVISION, Revision

MAX_FOLLOWED = 100
"""Revisions that are followed change by change; more are read as a whole."""


class DirectoryCatalog:
    """Implements `CatalogBackend` over a folder. Of revisions the last `kept` stay."""

    def __init__(
        self, folder: Path, checks: Checks = NO_CHECKS, *, kept: int = KEPT_REVISIONS
    ) -> None:
        self.folder = folder.resolve()
        self._checks = checks
        self._kept = kept
        self._state = self.folder / ".kirana"
        self._revisions = RevisionFolder(self._state)
        self._remembered = self._state / "remembered.json"
        self._records = RecordFiles(self.folder / "versions")
        self._sources = SourceFiles(self.folder)
        self._loaded: Catalog | None = None
        self._stamp: Stamp = ()
        """Of the file of the revision that is loaded."""
        self._loading = threading.Lock()

    def check(self) -> Checked:
        """See `CatalogBackend`."""
        sources = self._sources.read()
        live, _ = self._live_or_none()
        return self._check(sources, Remembered(), live, None)

    def _check(
        self,
        sources: Sources,
        remembered: Remembered,
        live: Catalog | None,
        before: Catalog | None,
    ) -> Checked:
        """Validate the source; `before` is a valid catalog, `live` the one to compare with."""
        items = sources.items()
        if not items:
            raise CatalogError([Problem("the folder defines no objects", str(self.folder))])
        published, storage = self._published_records(live)
        written = self._records.read(None, published, remembered)
        # stored rows follow the records that were published: none may be lost, or another
        self._records.require(published, written)
        where = sources.document
        return check_items(items, where, written, storage, self._checks, before, live)

    def publish(self, *, expected_revision: int | None = None) -> Published:
        """See `CatalogBackend`."""
        with self._lock():
            live = self._expect(expected_revision)
            catalog, trusted = self._live_or_none()
            before = catalog if trusted else None
            remembered = read_remembered(self._remembered) if before else Remembered()
            sources = self._sources.read(lambda chunk: _known(remembered, chunk, before))
            checked = self._check(sources, remembered, catalog, before)
            published = self._make_live(live, catalog, checked, {})
            self._remember(sources, checked.catalog)
            return published

    def _remember(self, sources: Sources, catalog: Catalog) -> None:
        chunks = {}
        for chunk, key in sources.chunks():
            item = catalog.item(key)
            # of a model, the file behind it may be another one next time
            if item is not None and key[0] != "model":
                chunks[text_digest(chunk.text)] = (*key, item_digest(item))
        # it saves time, and what is live stays so without it
        with suppress(OSError, CatalogError):
            records = self._records.stamps(catalog.history)
            write_remembered(self._remembered, Remembered(chunks=chunks, records=records))

    def publish_change(self, change: Change, expected_revision: int | None) -> Published:
        """See `CatalogPublisher`. What was edited in the files, and not applied, stays there.

        Raises `Conflict` too if that is one of the objects that change.
        """
        with self._lock():
            live = self._expect(expected_revision)
            if live == NO_REVISION:
                raise lost_catalog(str(self.folder))
            before = self.load(live)
            items, put = apply_change(before, change)
            checked = self._validate_change(before, items, put)
            deleted = list(change.delete.values())
            self._require_applied(before, [*put, *deleted])
            records = {key: each.document.data for key, each in put.items()}
            try:
                files = rewrite(self._sources, records, deleted)
            except (OSError, CatalogError) as error:
                raise Conflict(f"the source files can't be rewritten: {error}") from None
            return self._make_live(live, before, checked, files)

    def _validate_change(
        self, before: Catalog, items: Mapping[Key, Item], put: Mapping[Key, Located]
    ) -> Checked:
        """Validate a change: only the records of what it puts are read."""
        names = names_of_records(put)
        written = self._records.read(names)
        self._records.require(before.history.only(names), written)
        # nobody has looked at the records of the others: they are taken for written
        written = before.history.without(names).joined(written)
        where = in_request(put)
        return check_items(items, where, written, before.storage, self._checks, before, before)

    def history(self, limit: int) -> list[RevisionRecord]:
        records: list[RevisionRecord] = []
        live = self.current().number
        for number in sorted(self._revisions.numbers(), reverse=True):
            if number > live or len(records) >= limit:
                continue  # what a crash has left was never live
            try:
                about = orjson.loads(self._revisions.file(number, "about.json").read_bytes())
                records.append(RevisionRecord(**about))
            except (OSError, ValueError, TypeError):
                continue  # of a time before there were records
        return records

    def _expect(self, revision: int | None) -> Revision:
        live = self.current()
        if revision is not None and live.number != revision:
            raise Conflict(f"revision {live} is live, not {revision}", field="expected_revision")
        return live

    def _require_applied(self, live: Catalog, keys: Sequence[Key]) -> None:
        """What people have edited, and not published, must not be lost, nor go live by itself."""
        try:
            edited = self._sources.find(keys)
        except CatalogError as error:
            raise Conflict(f"fix the source files first: {error.message}") from None
        for key in keys:
            mine, theirs = edited.get(key), live.item(key)
            if not _same(mine.object if mine else None, theirs.parsed if theirs else None):
                where = mine.document.file if mine else str(self.folder)
                message = f"{key[0]} '{key[1]}' was edited in {where}, and not applied"
                raise Conflict(f"{message}: run 'kirana apply {self.folder}' first")

    def _make_live(
        self,
        live: Revision,
        before: Catalog | None,
        checked: Checked,
        files: Mapping[Path, bytes | None],
    ) -> Published:
        catalog, models = checked.catalog, self._checks.models
        identity = live.catalog or new_identity()
        if before is not None and not checked.changed and not checked.added:
            if models is not None:
                # copies may have been lost
                models.pin(identity, live.number, catalog.models.values())
            return Published(live, False, checked)
        number = max([live.number, *self._revisions.numbers()]) + 1
        if live != NO_REVISION:
            self._revisions.discard_after(live.number)
        if models is not None:
            models.pin(identity, number, catalog.models.values())
        self._records.append(checked.added)
        revision = Revision(identity, number)
        self._revisions.write(revision, catalog, before, checked.changed)
        # the source first: what is acknowledged must never be undone by the next 'apply'
        self._sources.require_unchanged(files)
        for file, text in files.items():
            if text is None:
                file.unlink(missing_ok=True)
            else:
                write_durably(file, text)
        self._revisions.make_current(revision)
        oldest = self._revisions.prune(self._kept)
        if models is not None:
            models.prune(identity, oldest)
        with self._loading:
            self._loaded, self._stamp = catalog.at(revision), self._revisions.stamp(number)
        return Published(revision, True, checked)

    def _live_or_none(self) -> tuple[Catalog | None, bool]:
        """Return the live revision as it was published, None if there is none, or it is damaged.

        Return too whether it was valid to this version of Kirana: then its objects are not parsed,
        and what they look up is known.
        """
        live, loaded = self.current(), self._loaded
        stamp = self._revisions.stamp(live.number)
        if loaded is not None and loaded.revision == live and stamp == self._stamp:
            return loaded, True
        uses = self._revisions.uses(live.number)
        try:
            written = read_revision(self._revisions.read(live.number))
            items = written.parsed_items() if uses is None else written.items()
            history = written.history
            if uses is None:
                history.parse()
        except (AttributeError, ValueError, KeyError, TypeError):
            return None, False
        if written.catalog != live.catalog:
            return None, False
        versions, storage = history.versions, history.storage
        compilers = self._checks.compilers
        catalog = Catalog(by_kind(items), versions, storage, compilers, revision=live, uses=uses)
        return catalog, uses is not None

    def close(self) -> None:
        """Nothing is held between calls."""

    def current(self) -> Revision:
        """See `CatalogSource`."""
        return self._revisions.current()

    def away_since(self) -> float | None:
        """See `CatalogSource`."""
        return self._revisions.away_since

    def load(self, revision: Revision) -> Catalog:
        """See `CatalogSource`. What has not changed since the last one that was loaded is kept."""
        with self._loading:
            loaded = self._loaded
            stamp = self._revisions.stamp(revision.number)
            if loaded is not None and loaded.revision == revision and stamp == self._stamp:
                return loaded
            found = self._follow(loaded, revision) if loaded is not None else None
            self._loaded, self._stamp = found or self._load(revision), stamp
            return self._loaded

    def _follow(self, loaded: Catalog, revision: Revision) -> Catalog | None:
        """Return a revision by the changes since the one that is loaded; None if it takes more."""
        since = revision.number - loaded.revision.number
        if loaded.revision.catalog != revision.catalog or not 0 < since <= MAX_FOLLOWED:
            return None
        try:
            steps = self._steps(loaded.revision.number, revision.number)
            for number, delta in steps or ():
                loaded = self._changed(loaded, delta, number)
        except (OSError, AttributeError, ValueError, KeyError, TypeError, CatalogError):
            # the whole revision is beside it, and says what is wrong
            return None
        return loaded if steps else None

    def _steps(self, start: int, stop: int) -> list[tuple[int, Delta]] | None:
        """Return what leads from the revision that is loaded to another one, in order.

        None if nothing does: a revision may have failed half-way, or an older folder may have been
        restored.
        """
        steps: list[tuple[int, Delta]] = []
        number = stop
        while number > start:
            delta = read_delta(self._revisions.file(number, "changes.json").read_bytes())
            steps.append((number, delta))
            number = delta.base
            stamp = self._stamp if number == start else self._revisions.stamp(number)
            if delta.stamp != stamp:
                return None
        return steps[::-1] if number == start else None

    def _changed(self, before: Catalog, delta: Delta, number: int) -> Catalog:
        items = {item.key: item for item in before.all_items() if item.key not in delta.gone}
        items |= delta.put
        history = before.history.joined(delta.history)
        where = at_home(delta.put.values(), str(self._revisions.file(number)))
        checks = self._checks.of_published()
        catalog = validate(items, where, history, checks, before).catalog
        return catalog.at(Revision(before.revision.catalog, number))

    def _load(self, revision: Revision) -> Catalog:
        file = self._revisions.file(revision.number)
        try:
            written = read_revision(file.read_bytes())
            items, history = written.parsed_items(), written.history
            history.parse()
        except FileNotFoundError:
            known = map(str, self._revisions.numbers())
            raise Unknown("revision", str(revision), known) from None
        except (AttributeError, ValueError, KeyError, TypeError, ValidationError) as error:
            raise CatalogError([Problem(f"this is not a revision: {error}", str(file))]) from None
        if written.catalog != revision.catalog:
            raise Unknown("revision", f"{revision} of catalog {revision.catalog}", [])
        checks = self._checks.of_published()
        where = at_home(items.values(), str(file))
        return validate(items, where, history, checks).catalog.at(revision)

    def _published_records(self, live: Catalog | None) -> tuple[History, Storage]:
        """Return the records of the live revision, and how it stores rows, also if it can't be
        used any more.
        """
        try:
            written = read_revision(self._revisions.read(self.current().number))
            recorded, storage = written.recorded, written.history.storage
            if live is not None and written.storage is not None:
                # the same, and what is remembered of them is known by them
                return live.history, storage
            recorded.parse()
        except (AttributeError, ValueError, KeyError, TypeError):
            return History(), {}
        return recorded, storage

    @contextmanager
    def _lock(self) -> Iterator[None]:
        if not self.folder.is_dir():
            raise CatalogError([Problem("the folder does not exist", str(self.folder))])
        self._state.mkdir(exist_ok=True)
        with (self._state / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _same(mine: CatalogObject | None, published: CatalogObject | None) -> bool:
    """Whether an object of the files is the published one; only the latter must have a digest."""
    if mine is None or published is None:
        return mine is published
    theirs = plain(published)
    if isinstance(mine, ModelObject) and mine.sha256 is None:
        theirs.pop("sha256", None)
    return plain(mine) == theirs


def _known(remembered: Remembered, chunk: Chunk, live: Catalog | None) -> Item | None:
    return remembered.item_of(chunk, live) if live is not None else None
