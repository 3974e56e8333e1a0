"""The catalog in a directory, which holds both the YAML files and the published revisions.

    DIR/*.yaml, DIR/*.yml             the source files, which people edit
    DIR/versions/<group>/<n>.yaml     schema versions: append-only, committed with the source
    DIR/versions/<entity>/<n>.yaml    storage records: append-only, committed with the source
    DIR/.kirana/revisions/<n>/        one published revision:
        catalog.json                      the whole revision
        changes.json                      the difference from the revision before
        about.json                        when it was published, and what it changed
        uses.json                         a cache: what the compiler of each object has looked up
    DIR/.kirana/remembered.json       a cache for the next publish: see `kirana.catalog.remembered`
    DIR/.kirana/lock                  the file that a publish locks
    DIR/.kirana/CURRENT               the number of the live revision and the catalog's identity,
                                      replaced by a rename

Replicas read only the published revisions. A publish holds the lock, so a concurrent publish waits,
and then sees the result of the first one.
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
from kirana.catalog.durable import write_durably
from kirana.catalog.history import History
from kirana.catalog.items import Item, Key, same_object
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
"""The largest number of deltas to apply. To advance further, the whole revision is read."""


class DirectoryCatalog:
    """`CatalogBackend` in a folder. A publish removes all but the last `kept` revisions."""

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
        """The stamp of the file of the loaded revision."""
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
        """Validate the source.

        `live` is the revision to compare with. It need not be valid. `before` is a valid revision,
        whose unchanged objects are not checked again. Either may be None. Raise `CatalogError` if
        the source is not valid.
        """
        items = sources.items()
        if not items:
            raise CatalogError([Problem("the folder defines no objects", str(self.folder))])
        published, storage = self._published_records(live)
        written = self._records.read(None, published, remembered)
        # Stored rows depend on the published records, so none may be missing or changed.
        self._records.require(published, written)
        document_of = sources.document
        return check_items(items, document_of, written, storage, self._checks, before, live)

    def publish(self, *, expected_revision: int | None = None) -> Published:
        """See `CatalogBackend`."""
        with self._lock():
            live = self._expect(expected_revision)
            catalog, trusted = self._live_or_none()
            before = catalog if trusted else None
            remembered = read_remembered(self._remembered) if before else Remembered()
            sources = self._sources.read(lambda chunk: remembered.item_of(chunk, before))
            checked = self._check(sources, remembered, catalog, before)
            published = self._make_live(live, catalog, checked, {})
            self._remember(sources, checked.catalog)
            return published

    def _remember(self, sources: Sources, catalog: Catalog) -> None:
        """Write `remembered.json` for the next publish."""
        chunks = {}
        for chunk, key in sources.chunks():
            item = catalog.item(key)
            # The chunks of models must always be parsed. The live item of a model has the digest of
            # the published bytes, but the model file may have changed.
            if item is not None and key[0] != "model":
                chunks[text_digest(chunk.text)] = (*key, item_digest(item))
        # If the file can't be written, the next publish only takes longer.
        with suppress(OSError, CatalogError):
            records = self._records.stamps(catalog.history)
            write_remembered(self._remembered, Remembered(chunks=chunks, records=records))

    def publish_change(self, change: Change, expected_revision: int | None) -> Published:
        """See `CatalogPublisher`. The source files are rewritten, too.

        Unpublished edits of other objects stay in the source files. Raise `Conflict` also if an
        object of the change has unpublished edits, or if the source files can't be rewritten.
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
            records = {key: located.document.data for key, located in put.items()}
            try:
                files = rewrite(self._sources, records, deleted)
            except (OSError, CatalogError) as error:
                raise Conflict(f"the source files can't be rewritten: {error}") from None
            return self._make_live(live, before, checked, files)

    def _validate_change(
        self, before: Catalog, items: Mapping[Key, Item], put: Mapping[Key, Located]
    ) -> Checked:
        """Validate a change. Read only the record files that belong to the objects in `put`."""
        names = names_of_records(put)
        written = self._records.read(names)
        self._records.require(before.history.only(names), written)
        # Assume that the record files of other groups and entities hold the published records.
        written = before.history.without(names).joined(written)
        document_of = located_in_request(put)
        return check_items(
            items, document_of, written, before.storage, self._checks, before, before
        )

    def history(self, limit: int) -> list[RevisionRecord]:
        """See `CatalogPublisher`."""
        records: list[RevisionRecord] = []
        live = self.current().number
        for number in sorted(self._revisions.numbers(), reverse=True):
            # Revisions after the live one are left from publishes that failed.
            if number > live or len(records) >= limit:
                continue
            try:
                about = orjson.loads(self._revisions.file(number, "about.json").read_bytes())
                records.append(RevisionRecord(**about))
            except (OSError, ValueError, TypeError):
                continue  # The entry is damaged, or missing: early versions of Kirana wrote none.
        return records

    def _expect(self, revision: int | None) -> Revision:
        """Return the live revision. Raise `Conflict` if `revision` is given and is not live."""
        live = self.current()
        if revision is not None and live.number != revision:
            raise Conflict(f"revision {live} is live, not {revision}", field="expected_revision")
        return live

    def _require_applied(self, live: Catalog, keys: Sequence[Key]) -> None:
        """Raise `Conflict` if the source files have unpublished edits of the objects in `keys`.

        A change of these objects would overwrite the edits. Raise `Conflict` also if the source
        files are not valid.
        """
        try:
            edited = self._sources.find(keys)
        except CatalogError as error:
            raise Conflict(f"fix the source files first: {error.message}") from None
        for key in keys:
            in_files, published = edited.get(key), live.item(key)
            if not same_object(
                in_files.object if in_files else None, published.parsed if published else None
            ):
                place = in_files.document.file if in_files else str(self.folder)
                message = f"{key[0]} '{key[1]}' has unpublished edits in {place}"
                raise Conflict(f"{message}: run 'kirana apply {self.folder}' first")

    def _make_live(
        self,
        live: Revision,
        before: Catalog | None,
        checked: Checked,
        files: Mapping[Path, bytes | None],
    ) -> Published:
        """Publish a checked catalog, and replace source `files` (None removes a file).

        `before` is the catalog of the `live` revision, or None if the revision can't be read. If
        nothing has changed, publish nothing.
        """
        catalog, models = checked.catalog, self._checks.models
        if self._checks.tables is not None:
            self._checks.tables.ensure(before, catalog)
        identity = live.catalog or new_identity()
        if before is not None and not checked.changed and not checked.added:
            if models is not None:
                # This restores lost copies of model files.
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
        # Write the source files before `CURRENT`. In the opposite order, a crash in between would
        # leave a live change that the next `kirana apply` would undo.
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
        """Return the live revision without checks, or None if there is none or it is damaged.

        The second value is True if this version of the code has already validated the revision. Its
        objects then need not be parsed, and its `Catalog.uses` are known.
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
        """Do nothing: this backend holds no resources between calls."""

    def current(self) -> Revision:
        """See `CatalogSource`."""
        return self._revisions.current()

    def away_since(self) -> float | None:
        """See `CatalogSource`."""
        return self._revisions.away_since

    def load(self, revision: Revision) -> Catalog:
        """See `CatalogSource`. Share objects with the last loaded revision, if possible."""
        with self._loading:
            loaded = self._loaded
            stamp = self._revisions.stamp(revision.number)
            if loaded is not None and loaded.revision == revision and stamp == self._stamp:
                return loaded
            followed = self._follow(loaded, revision) if loaded is not None else None
            self._loaded, self._stamp = followed or self._load(revision), stamp
            return self._loaded

    def _follow(self, loaded: Catalog, revision: Revision) -> Catalog | None:
        """Return `revision`, made by applying deltas to the loaded revision.

        Return None if `revision` is of another catalog, not ahead, or more than `MAX_FOLLOWED`
        revisions ahead. Return None also if the deltas do not lead to it or can't be applied.
        """
        distance = revision.number - loaded.revision.number
        if loaded.revision.catalog != revision.catalog or not 0 < distance <= MAX_FOLLOWED:
            return None
        try:
            steps = self._steps(loaded.revision.number, revision.number)
            for number, delta in steps or ():
                loaded = self._with_delta(loaded, delta, number)
        except (OSError, AttributeError, ValueError, KeyError, TypeError, CatalogError):
            # The caller then reads the whole revision.
            return None
        return loaded if steps else None

    def _steps(self, start: int, stop: int) -> list[tuple[int, Delta]] | None:
        """Return the deltas from revision `start`, the loaded one, to `stop`, in order.

        Each delta comes with the number of its revision. Return None if the deltas do not connect
        `start` and `stop`, for example because an older state of the folder was restored.
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

    def _with_delta(self, before: Catalog, delta: Delta, number: int) -> Catalog:
        """Return the revision `number`, which is `before` with a delta applied."""
        items = {item.key: item for item in before.all_items() if item.key not in delta.deleted}
        items |= delta.put
        history = before.history.joined(delta.history)
        document_of = located_in_file(delta.put.values(), str(self._revisions.file(number)))
        checks = self._checks.of_published()
        catalog = validate(items, document_of, history, checks, before).catalog
        return catalog.at(Revision(before.revision.catalog, number))

    def _load(self, revision: Revision) -> Catalog:
        """Read and compile a whole revision. Raise `Unknown` or `CatalogError` as `load` does."""
        file = self._revisions.file(revision.number)
        try:
            written = read_revision(file.read_bytes())
            items, history = written.parsed_items(), written.history
            history.parse()
        except FileNotFoundError:
            numbers = map(str, self._revisions.numbers())
            raise Unknown("revision", str(revision), numbers) from None
        except (AttributeError, ValueError, KeyError, TypeError, ValidationError) as error:
            raise CatalogError([Problem(f"this revision is damaged: {error}", str(file))]) from None
        if written.catalog != revision.catalog:
            known = f"{revision} of catalog {written.catalog}"
            raise Unknown("revision", f"{revision} of catalog {revision.catalog}", [known])
        checks = self._checks.of_published()
        document_of = located_in_file(items.values(), str(file))
        return validate(items, document_of, history, checks).catalog.at(revision)

    def _published_records(self, live: Catalog | None) -> tuple[History, Storage]:
        """Return the records of the live revision, and how it stores rows, even if it is not valid.

        If the revision was published without storage records, the second value has records made
        from its objects. Both are empty if the file of the revision can't be read.
        """
        try:
            written = read_revision(self._revisions.read(self.current().number))
            recorded, storage = written.recorded, written.history.storage
            if live is not None and written.storage is not None:
                # `live` has the same records, and their digests may already be computed.
                return live.history, storage
            recorded.parse()
        except (AttributeError, ValueError, KeyError, TypeError):
            return History(), {}
        return recorded, storage

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """Hold the file lock of a publish. Wait while another publish holds it.

        Raise `CatalogError` if the folder of the catalog does not exist.
        """
        if not self.folder.is_dir():
            raise CatalogError([Problem("the folder does not exist", str(self.folder))])
        self._state.mkdir(exist_ok=True)
        with (self._state / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
