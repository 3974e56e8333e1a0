"""The append-only records of a catalog as files: `versions/<name>/<n>.yaml`.

`<name>` is a feature group (`product.stats`) for schema versions, and an entity for how its rows
are stored. Each file carries the fingerprint of what is in it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import yaml

from kirana.catalog.documents import SafeLoader
from kirana.catalog.durable import write_durably
from kirana.catalog.history import Additions, History
from kirana.catalog.records import Records
from kirana.catalog.remembered import Remembered, Stamps
from kirana.catalog.schema_records import features_record, parse_version, version_records
from kirana.catalog.stamps import Stamp, stamp_in
from kirana.catalog.storage_records import StorageRecord, parse_record, record_of, storage_records
from kirana.errors import CatalogError, Problem
from kirana.schema import SchemaVersion

NOTE = "# Written by 'kirana apply'. Stored rows depend on it: never edit, commit it.\n"


class _Record(Protocol):
    @property
    def number(self) -> int: ...

    @property
    def fingerprint(self) -> int: ...


R = TypeVar("R", bound=_Record)


class RecordFiles:
    """The files below one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: dict[Path, tuple[Any, Any]] = {}
        """What was read, by the stamp of its file."""
        self._held: dict[str, tuple[Stamps, Records[Any]]] = {}
        """What the files of a group or entity held when they were last looked at."""
        self._appended: set[str] = set()

    def read(
        self,
        names: Iterable[str] | None = None,
        published: History | None = None,
        remembered: Remembered | None = None,
    ) -> History:
        """Return the records of some groups and entities, of all if none are named.

        Files that are `remembered` to hold what was `published` are not read.
        Raises `CatalogError` for a file that is missing, damaged, or was changed.
        """
        versions: dict[str, Records[Any]] = {}
        storage: dict[str, Records[Any]] = {}
        there, known = published or History(), remembered or Remembered()
        self._appended = set()
        for name in self._names() if names is None else sorted(names):
            files = self._files(name)
            if not files:
                continue
            stamps = [stamp for _, stamp in files]
            held: Records[Any] | None
            held = there.versions.get(name) if "." in name else there.storage.get(name)
            if held is None or not known.has_records(name, stamps, held.digest):
                held = self._parsed(name, files)
            (versions if "." in name else storage)[name] = held
            self._held[name] = (stamps, held)
        return History(versions, storage)

    def stamps(self, history: History) -> dict[str, tuple[Stamps, str]]:
        """Return what tells, for each group and entity, that its files hold these records.

        Those are left out whose files were never seen to do so.
        """
        records: dict[str, Records[Any]] = {**history.versions, **history.storage}
        found = {}
        for name, each in records.items():
            stamps, held = self._held.get(name, ([], None))
            if name in self._appended:
                stamps = [stamp for _, stamp in self._files(name)]
                held = each if len(stamps) == len(each) else None
            if held == each:
                found[name] = (stamps, each.digest)
        return found

    def _names(self) -> list[str]:
        if not self._folder.is_dir():
            return []
        with os.scandir(self._folder) as found:
            return sorted(each.name for each in found if each.is_dir())

    def _files(self, name: str) -> list[tuple[Path, Stamp]]:
        """Return the files of the records of a name, in order, with what tells a change."""
        folder = self._folder / name
        try:
            with os.scandir(folder) as found:
                stats = {each.name: each.stat() for each in found if each.name.endswith(".yaml")}
        except OSError:
            return []
        files = []
        for number, file in enumerate(sorted(stats, key=lambda each: each.zfill(10)), start=1):
            if file != f"{number}.yaml":
                message = f"record {number} of '{name}' is missing"
                raise CatalogError([Problem(message, str(folder))])
            files.append((folder / file, stamp_in(stats[file])))
        return files

    def _parsed(self, name: str, files: Sequence[tuple[Path, Stamp]]) -> Records[Any]:
        read: Callable[[Path, str, int], Any] = _read_version if "." in name else _read_storage
        records = []
        for number, (file, stamp) in enumerate(files, start=1):
            known = self._read.get(file)
            if known is None or known[0] != stamp:
                known = self._read[file] = (stamp, read(file, name, number))
            records.append(known[1])
        return version_records(records) if "." in name else storage_records(records)

    def append(self, added: Additions) -> None:
        """Write new records durably."""
        self._appended = {each.group for each in added.versions}
        self._appended |= {each.entity for each in added.storage}
        for version in added.versions:
            content = {"features": features_record(version)}
            self._write(version.group, version, content)
        for record in added.storage:
            self._write(record.entity, record, record_of(record))

    def require(self, published: History, written: History) -> None:
        """Raise `CatalogError` if records that were published are gone, or are others now."""
        problems = [
            *self._lost(published.versions, written.versions),
            *self._lost(published.storage, written.storage),
        ]
        if problems:
            raise CatalogError(problems)

    def _lost(
        self, published: Mapping[str, Sequence[R]], written: Mapping[str, Sequence[R]]
    ) -> list[Problem]:
        problems = []
        for name, records in published.items():
            if written.get(name) is records:
                continue
            for record in records:
                found = written.get(name, ())[record.number - 1 : record.number]
                if not found or repr(found[0]) != repr(record):
                    what = "was changed after" if found else "is gone since"
                    message = f"it {what} it was published: restore it from version control"
                    problems.append(Problem(message, str(self._file(name, record.number))))
        return problems

    def _write(self, name: str, record: _Record, content: Mapping[str, Any]) -> None:
        file = self._file(name, record.number)
        if file.exists():
            message = f"record {record.number} of '{name}' was written meanwhile: apply again"
            raise CatalogError([Problem(message, str(file))])
        file.parent.mkdir(parents=True, exist_ok=True)
        whole = {"fingerprint": f"{record.fingerprint:08x}", **content}
        text = NOTE + yaml.safe_dump(whole, sort_keys=False, default_flow_style=None, width=100)
        write_durably(file, text.encode())

    def _file(self, name: str, number: int) -> Path:
        return self._folder / name / f"{number}.yaml"


def _read_version(file: Path, group: str, number: int) -> SchemaVersion:
    try:
        record = yaml.load(file.read_bytes(), SafeLoader)
        version = parse_version(group, number, record["features"])
        printed = int(record["fingerprint"], 16)
    except (OSError, yaml.YAMLError, ValueError, KeyError, TypeError) as error:
        raise CatalogError([Problem(f"this is not a schema version: {error}", str(file))]) from None
    _require_print(version.fingerprint, printed, file)
    return version


def _read_storage(file: Path, entity: str, number: int) -> StorageRecord:
    try:
        record = yaml.load(file.read_bytes(), SafeLoader)
        storage = parse_record(entity, number, record)
        printed = int(record["fingerprint"], 16)
    except (OSError, yaml.YAMLError, AttributeError, ValueError, KeyError, TypeError) as error:
        raise CatalogError([Problem(f"this is not a storage record: {error}", str(file))]) from None
    _require_print(storage.fingerprint, printed, file)
    return storage


def _require_print(found: int, written: int, file: Path) -> None:
    if found != written:
        message = "it was changed after it was published; restore it from version control"
        raise CatalogError([Problem(message, str(file))])
