"""The catalog in a directory: YAML files are the source, `.kirana/revisions/<n>/` what is live.

    DIR/*.yaml                        what people edit
    DIR/versions/<group>/<n>.yaml     schema versions, append-only, to be committed with it
    DIR/.kirana/revisions/<n>/        `catalog.json`: a whole published revision; `about.json`:
                                      when it was published, and what it changed
    DIR/.kirana/CURRENT               the number of the live one, replaced by a rename

Replicas read only what is published. Publishing is done under a file lock, so that of two at
once the second sees what the first has done.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import orjson
import yaml
from pydantic import ValidationError

from kirana.catalog.changes import Change, Key, RevisionRecord, apply_change, plain
from kirana.catalog.documents import read_documents
from kirana.catalog.objects import CatalogObject
from kirana.catalog.publishing import (
    Published,
    added_versions,
    read_object,
    record_of,
    serialize,
)
from kirana.catalog.schema_records import features_record, parse_version, parse_versions
from kirana.catalog.snapshot import Catalog
from kirana.catalog.source_files import rewrite
from kirana.catalog.validation import Placed, Signatures, parse_documents, validate
from kirana.errors import CatalogError, Conflict, KiranaError, Problem, Unknown
from kirana.schema import SchemaVersion


class DirectoryCatalog:
    """Implements `CatalogPlace` over a folder.

    `signatures` reads the model files of what is published; without it they are not looked into.
    """

    def __init__(self, folder: Path, signatures: Signatures | None = None) -> None:
        self.folder = folder.resolve()
        self._signatures = signatures
        self._state = self.folder / ".kirana"
        self._current = self._state / "CURRENT"
        self._versions = self.folder / "versions"

    def check(self) -> tuple[Catalog, tuple[SchemaVersion, ...]]:
        """Validate the source; return it with the schema versions that publishing would add.

        Raises `CatalogError` with every problem that was found.
        """
        return self._validate(parse_documents(read_documents(self.folder)))

    def _validate(self, placed: Sequence[Placed]) -> tuple[Catalog, tuple[SchemaVersion, ...]]:
        versions = self._read_versions()
        self._check_history(versions)
        if not placed:
            raise CatalogError([Problem("its files hold no object", str(self.folder))])
        catalog = validate(placed, versions, self._signatures)
        return catalog, added_versions(catalog, versions)

    def publish(self, *, expected_revision: int | None = None) -> Published:
        """Make the source the next revision, as one step.

        Raises `CatalogError` if it is not valid, `Conflict` if another revision than
        `expected_revision` is live.
        """
        with self._lock():
            live = self._expect(expected_revision)
            catalog, added = self.check()
            return self._make_live(live, catalog, added, {})

    def publish_change(self, change: Change, expected_revision: int | None) -> int:
        """See `CatalogPublisher`. What was edited in the files, and not applied, stays there.

        Raises `Conflict` too if that is one of the objects that change.
        """
        with self._lock():
            live = self._expect(expected_revision)
            before = self.load(live) if live else None
            placed, put = apply_change(before, change)
            catalog, added = self._validate(placed)
            deleted = list(change.delete.values())
            self._require_applied(before, [*put, *deleted])
            records = {key: each.document.data for key, each in put.items()}
            try:
                files = rewrite(self.folder, records, deleted)
            except (OSError, UnicodeDecodeError) as error:
                raise Conflict(f"the source can't be rewritten: {error}") from None
            return self._make_live(live, catalog, added, files).revision

    def history(self, limit: int) -> list[RevisionRecord]:
        records: list[RevisionRecord] = []
        live = self.current()
        for number in sorted(self._revision_numbers(), reverse=True):
            if number > live or len(records) >= limit:
                continue  # what a crash has left was never live
            try:
                about = orjson.loads(self._revision_file(number, "about.json").read_bytes())
                records.append(RevisionRecord(**about))
            except (OSError, ValueError, TypeError):
                continue  # of a time before there were records
        return records

    def _expect(self, revision: int | None) -> int:
        live = self.current()
        if revision is not None and live != revision:
            raise Conflict(f"revision {live} is live, not {revision}", field="expected_revision")
        return live

    def _require_applied(self, live: Catalog | None, keys: Sequence[Key]) -> None:
        """What people have edited, and not published, must not be lost, nor go live by itself."""
        try:
            placed = parse_documents(read_documents(self.folder))
        except CatalogError as error:
            raise Conflict(f"mend the source first: {error.message}") from None
        edited = {each.key: each for each in placed}
        objects = live.objects if live else ()
        published: dict[Key, CatalogObject] = {(each.kind, each.name): each for each in objects}
        for key in keys:
            mine, theirs = edited.get(key), published.get(key)
            if (mine and plain(mine.object)) != (theirs and plain(theirs)):
                where = mine.document.file if mine else str(self.folder)
                message = f"{key[0]} '{key[1]}' was edited in {where}, and not applied"
                raise Conflict(f"{message}: run 'kirana apply {self.folder}' first")

    def _make_live(
        self,
        live: int,
        catalog: Catalog,
        added: tuple[SchemaVersion, ...],
        files: Mapping[Path, bytes | None],
    ) -> Published:
        content = serialize(catalog)
        before = self._read_revision(live) if live else b""
        if before == content and not added:
            return Published(live, False, ())
        for version in added:
            self._write_version(version)
        revision = max([live, *self._revision_numbers()]) + 1
        self._revision_file(revision).parent.mkdir(parents=True)
        _write_durably(self._revision_file(revision), content)
        record = record_of(revision, self._objects_of(live), catalog.objects)
        _write_durably(self._revision_file(revision, "about.json"), orjson.dumps(record))
        # the source first: what is acknowledged must never be undone by the next 'apply'
        for file, text in files.items():
            if text is None:
                file.unlink(missing_ok=True)
            else:
                _write_durably(file, text)
        _write_durably(self._current, str(revision).encode())
        return Published(revision, True, added)

    def _objects_of(self, revision: int) -> Sequence[CatalogObject]:
        """Return the objects of a revision; none if it can't be read."""
        try:
            return self.load(revision).objects if revision else ()
        except KiranaError:
            return ()

    def close(self) -> None:
        """Nothing is held between calls."""

    def current(self) -> int:
        try:
            text = self._current.read_bytes().strip()
        except FileNotFoundError:
            return 0
        return int(text) if text.isdigit() else 0

    def load(self, revision: int) -> Catalog:
        file = self._revision_file(revision)
        try:
            content = orjson.loads(file.read_bytes())
            placed = [read_object(each, str(file)) for each in content["objects"]]
            versions = parse_versions(content["versions"])
        except FileNotFoundError:
            known = map(str, self._revision_numbers())
            raise Unknown("revision", str(revision), known) from None
        except (AttributeError, ValueError, KeyError, TypeError, ValidationError) as error:
            raise CatalogError([Problem(f"this is no revision: {error}", str(file))]) from None
        catalog = validate(placed, versions, None)
        return Catalog(**{**vars(catalog), "revision": revision})

    def _read_revision(self, revision: int) -> bytes:
        try:
            return self._revision_file(revision).read_bytes()
        except FileNotFoundError:
            return b""

    def _check_history(self, versions: Mapping[str, Sequence[SchemaVersion]]) -> None:
        """Stored rows follow the versions that were published: none may be lost, or another."""
        try:
            published = parse_versions(
                orjson.loads(self._read_revision(self.current()))["versions"]
            )
        except (AttributeError, ValueError, KeyError, TypeError):
            return
        problems = []
        for group, history in published.items():
            for version in history:
                found = versions.get(group, ())[version.number - 1 : version.number]
                if not found or repr(found[0].features) != repr(version.features):
                    what = "was changed after" if found else "is gone since"
                    message = f"it {what} it was published: restore it from version control"
                    problems.append(Problem(message, str(self._version_file(version))))
        if problems:
            raise CatalogError(problems)

    def _version_file(self, version: SchemaVersion) -> Path:
        return self._versions / version.group / f"{version.number}.yaml"

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

    def _read_versions(self) -> dict[str, list[SchemaVersion]]:
        versions: dict[str, list[SchemaVersion]] = {}
        for folder in sorted(self._versions.glob("*/")):
            numbered = sorted(folder.glob("*.yaml"), key=lambda file: file.stem.zfill(5))
            for number, file in enumerate(numbered, start=1):
                if file.stem != str(number):
                    message = f"schema version {number} of '{folder.name}' is missing"
                    raise CatalogError([Problem(message, str(folder))])
                try:
                    record = yaml.safe_load(file.read_bytes())
                    version = parse_version(folder.name, number, record["features"])
                    matches = version.fingerprint == int(record["fingerprint"], 16)
                except (OSError, yaml.YAMLError, ValueError, KeyError, TypeError) as error:
                    message = f"this is no schema version: {error}"
                    raise CatalogError([Problem(message, str(file))]) from None
                if not matches:
                    message = (
                        "it was changed after it was published; restore it from version control"
                    )
                    raise CatalogError([Problem(message, str(file))])
                versions.setdefault(folder.name, []).append(version)
        return versions

    def _write_version(self, version: SchemaVersion) -> None:
        file = self._version_file(version)
        file.parent.mkdir(parents=True, exist_ok=True)
        record = {
            "fingerprint": f"{version.fingerprint:08x}",
            "features": features_record(version),
        }
        note = "# Written by 'kirana apply'. Stored rows depend on it: never edit, commit it.\n"
        text = note + yaml.safe_dump(record, sort_keys=False, default_flow_style=None, width=100)
        _write_durably(file, text.encode())


def _write_durably(file: Path, content: bytes) -> None:
    """Write beside, sync, rename: a reader sees the old file or the new one."""
    beside = file.with_name(f".{file.name}.{os.getpid()}")
    with beside.open("wb") as opened:
        opened.write(content)
        opened.flush()
        os.fsync(opened.fileno())
    beside.rename(file)
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
