"""The catalog in a directory: YAML files are the source, `.kirana/revisions/<n>/` what is live.

    DIR/*.yaml                        what people edit
    DIR/versions/<group>/<n>.yaml     schema versions, append-only, to be committed with it
    DIR/versions/<entity>/<n>.yaml    how rows are stored, append-only, to be committed with it
    DIR/.kirana/revisions/<n>/        `catalog.json`: a whole published revision; `about.json`:
                                      when it was published, and what it changed
    DIR/.kirana/CURRENT               the number of the live one and the identity of the catalog,
                                      replaced by a rename

Replicas read only what is published. Publishing is done under a file lock, so that of two at
once the second sees what the first has done.
"""

from __future__ import annotations

import fcntl
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
from pydantic import ValidationError

from kirana.catalog.changes import Change, Key, RevisionRecord, apply_change, plain
from kirana.catalog.documents import read_documents
from kirana.catalog.durable import write_durably
from kirana.catalog.history import History, additions
from kirana.catalog.model_store import ModelStore
from kirana.catalog.objects import CatalogObject, ModelObject
from kirana.catalog.publishing import (
    KEPT_REVISIONS,
    Checked,
    Published,
    lost_catalog,
    new_bytes,
    new_identity,
    read_object,
    record_of,
    serialize,
)
from kirana.catalog.record_files import RecordFiles
from kirana.catalog.schema_records import parse_versions
from kirana.catalog.snapshot import Catalog
from kirana.catalog.source_files import rewrite
from kirana.catalog.storage_records import Storage, parse_storage, storage_of
from kirana.catalog.validation import Placed, parse_documents, validate
from kirana.errors import CatalogError, Conflict, KiranaError, Problem, Unknown
from kirana.revision import NO_REVISION, Revision


class DirectoryCatalog:
    """Implements `CatalogPlace` over a folder.

    `models` are the files behind its models; without it they are neither looked into nor pinned.
    Of revisions the last `kept` stay.
    """

    def __init__(
        self, folder: Path, models: ModelStore | None = None, *, kept: int = KEPT_REVISIONS
    ) -> None:
        self.folder = folder.resolve()
        self._models = models
        self._kept = kept
        self._seen = False
        self._away_since: float | None = None
        self._state = self.folder / ".kirana"
        self._current = self._state / "CURRENT"
        self._records = RecordFiles(self.folder / "versions")

    def check(self) -> Checked:
        """See `CatalogPlace`."""
        return self._check(self._live_or_none())

    def _check(self, live: Catalog | None) -> Checked:
        return self._validate(parse_documents(read_documents(self.folder)), live)

    def _validate(self, placed: Sequence[Placed], live: Catalog | None) -> Checked:
        written, content = self._records.read(), self._published_content()
        self._require_published_records(written, content)
        if not placed:
            raise CatalogError([Problem("its files hold no object", str(self.folder))])
        known = written.with_live(_storage_in(content))
        validated = validate(placed, known, self._models)
        catalog = validated.catalog
        added = additions(catalog, written, known)
        return Checked(catalog, added, validated.warnings, new_bytes(catalog, live))

    def publish(self, *, expected_revision: int | None = None) -> Published:
        """See `CatalogPlace`."""
        with self._lock():
            live = self._expect(expected_revision)
            before = self._live_or_none()
            return self._make_live(live, before, self._check(before), {})

    def publish_change(self, change: Change, expected_revision: int | None) -> Published:
        """See `CatalogPublisher`. What was edited in the files, and not applied, stays there.

        Raises `Conflict` too if that is one of the objects that change.
        """
        with self._lock():
            live = self._expect(expected_revision)
            if live == NO_REVISION:
                raise lost_catalog(str(self.folder))
            before = self.load(live)
            placed, put = apply_change(before, change)
            checked = self._validate(placed, before)
            deleted = list(change.delete.values())
            self._require_applied(before, [*put, *deleted])
            records = {key: each.document.data for key, each in put.items()}
            try:
                files = rewrite(self.folder, records, deleted)
            except (OSError, UnicodeDecodeError) as error:
                raise Conflict(f"the source can't be rewritten: {error}") from None
            return self._make_live(live, before, checked, files)

    def history(self, limit: int) -> list[RevisionRecord]:
        records: list[RevisionRecord] = []
        live = self.current().number
        for number in sorted(self._revision_numbers(), reverse=True):
            if number > live or len(records) >= limit:
                continue  # what a crash has left was never live
            try:
                about = orjson.loads(self._revision_file(number, "about.json").read_bytes())
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
            placed = parse_documents(read_documents(self.folder))
        except CatalogError as error:
            raise Conflict(f"mend the source first: {error.message}") from None
        edited = {each.key: each for each in placed}
        published: dict[Key, CatalogObject] = {(e.kind, e.name): e for e in live.objects}
        for key in keys:
            mine, theirs = edited.get(key), published.get(key)
            if not _same(mine.object if mine else None, theirs):
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
        catalog = checked.catalog
        identity = live.catalog or new_identity()
        content = serialize(catalog, identity)
        if self._read_revision(live.number) == content and not checked.added:
            if self._models is not None:
                # copies may have been lost
                self._models.pin(identity, live.number, catalog.models.values())
            return Published(live, False, checked)
        number = max([live.number, *self._revision_numbers()]) + 1
        if self._models is not None:
            self._models.pin(identity, number, catalog.models.values())
        self._records.append(checked.added)
        self._revision_file(number).parent.mkdir(parents=True)
        write_durably(self._revision_file(number), content)
        record = record_of(number, before.objects if before else (), catalog.objects)
        write_durably(self._revision_file(number, "about.json"), orjson.dumps(record))
        # the source first: what is acknowledged must never be undone by the next 'apply'
        for file, text in files.items():
            if text is None:
                file.unlink(missing_ok=True)
            else:
                write_durably(file, text)
        write_durably(self._current, f"{number} {identity}".encode())
        self._prune(identity)
        return Published(Revision(identity, number), True, checked)

    def _prune(self, identity: str) -> None:
        """Remove the revisions before the last ones, and the bytes of models that only they had."""
        numbers = sorted(self._revision_numbers())
        for number in numbers[: -self._kept]:
            shutil.rmtree(self._revision_file(number).parent, ignore_errors=True)
        if self._models is not None:
            self._models.prune(identity, min(numbers[-self._kept :]))

    def _live_or_none(self) -> Catalog | None:
        """Return the live revision; None where there is none, or it can't be read."""
        try:
            live = self.current()
            return self.load(live) if live.number else None
        except KiranaError:
            return None

    def close(self) -> None:
        """Nothing is held between calls."""

    def current(self) -> Revision:
        """See `CatalogSource`."""
        try:
            number, _, identity = self._current.read_text().strip().partition(" ")
        except (OSError, UnicodeDecodeError):
            number, identity = "", ""
        if number.isdecimal():
            self._seen, self._away_since = True, None
            return Revision(identity, int(number))
        if self._seen and self._away_since is None:
            self._away_since = time.time()
        return NO_REVISION

    def away_since(self) -> float | None:
        """See `CatalogSource`: since when what was there is gone."""
        return self._away_since

    def load(self, revision: Revision) -> Catalog:
        """See `CatalogSource`."""
        file = self._revision_file(revision.number)
        try:
            content = orjson.loads(file.read_bytes())
            placed = [read_object(each, str(file)) for each in content["objects"]]
            versions = parse_versions(content["versions"])
            # what was published before there were records, or identities, has none
            storage = parse_storage(content.get("storage", {}))
            identity = content.get("catalog", "")
        except FileNotFoundError:
            known = map(str, self._revision_numbers())
            raise Unknown("revision", str(revision), known) from None
        except (AttributeError, ValueError, KeyError, TypeError, ValidationError) as error:
            raise CatalogError([Problem(f"this is no revision: {error}", str(file))]) from None
        if identity != revision.catalog:
            raise Unknown("revision", f"{revision} of catalog {revision.catalog}", [])
        catalog = validate(placed, History(versions, storage), None).catalog
        return replace(catalog, revision=revision)

    def _read_revision(self, revision: int) -> bytes:
        try:
            return self._revision_file(revision).read_bytes()
        except FileNotFoundError:
            return b""

    def _require_published_records(self, written: History, content: Mapping[str, Any]) -> None:
        """Stored rows follow the records that were published: none may be lost, or another."""
        try:
            published = History(
                parse_versions(content["versions"]), parse_storage(content.get("storage", {}))
            )
        except (AttributeError, ValueError, KeyError, TypeError):
            return
        self._records.require(published, written)

    def _published_content(self) -> dict[str, Any]:
        """Return the live revision as it was written down, nothing where there is none."""
        try:
            content = orjson.loads(self._read_revision(self.current().number))
        except ValueError:
            return {}
        return content if isinstance(content, dict) else {}

    def _revision_file(self, revision: int, name: str = "catalog.json") -> Path:
        return self._state / "revisions" / str(revision) / name

    def _revision_numbers(self) -> list[int]:
        folder = self._state / "revisions"
        names = [each.name for each in folder.iterdir()] if folder.is_dir() else []
        return [int(name) for name in names if name.isdecimal()]

    @contextmanager
    def _lock(self) -> Iterator[None]:
        if not self.folder.is_dir():
            raise CatalogError([Problem("there is no such folder", str(self.folder))])
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


def _storage_in(content: Mapping[str, Any]) -> Storage:
    """Return how a published revision stores rows, also if it can't be loaded any more."""
    try:
        if "storage" in content:
            return parse_storage(content["storage"])
        return storage_of(content["objects"])
    except (AttributeError, ValueError, KeyError, TypeError):
        return {}
