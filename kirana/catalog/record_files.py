"""The append-only records of a catalog as files: `versions/<name>/<n>.yaml`.

`<name>` is a feature group (`product.stats`) for schema versions, and an entity (`product`) for
storage records. Each file has a fingerprint of its content.
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
from kirana.catalog.records import Records, record_title
from kirana.catalog.remembered import Remembered, Stamps
from kirana.catalog.schema_records import features_record, parse_version, version_records
from kirana.catalog.stamps import Stamp, stamp_of_stat
from kirana.catalog.storage_records import StorageRecord, parse_record, record_of, storage_records
from kirana.errors import CatalogError, Problem
from kirana.schema import SchemaVersion

NOTE = (
    "# Written by 'kirana apply'. Stored rows depend on this file: commit it, and do not edit it.\n"
)


class _Record(Protocol):
    @property
    def number(self) -> int: ...

    @property
    def fingerprint(self) -> int: ...


R = TypeVar("R", bound=_Record)


class RecordFiles:
    """The record files below one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: dict[Path, tuple[Any, Any]] = {}
        """The stamp and the record of each file that was read."""
        self._held: dict[str, tuple[Stamps, Records[Any]]] = {}
        """The stamps of the files of each group or entity, and the records that were in them."""
        self._appended: set[str] = set()
        """The groups and entities that `append` has added records to since the last `read`."""

    def read(
        self,
        names: Iterable[str] | None = None,
        published: History | None = None,
        remembered: Remembered | None = None,
    ) -> History:
        """Return the records of some groups and entities, or of all if `names` is None.

        Files that hold the `published` records according to `remembered` are not read. Raise
        `CatalogError` if a number is missing before the last one, or a file is damaged or edited.
        """
        versions: dict[str, Records[Any]] = {}
        storage: dict[str, Records[Any]] = {}
        history, memory = published or History(), remembered or Remembered()
        self._appended = set()
        for name in self._names() if names is None else sorted(names):
            files = self._files(name)
            if not files:
                continue
            stamps = [stamp for _, stamp in files]
            records: Records[Any] | None
            records = history.versions.get(name) if "." in name else history.storage.get(name)
            if records is None or not memory.has_records(name, stamps, records.digest):
                records = self._parsed(name, files)
            (versions if "." in name else storage)[name] = records
            self._held[name] = (stamps, records)
        return History(versions, storage)

    def stamps(self, history: History) -> dict[str, tuple[Stamps, str]]:
        """Return the stamps of the files, and the digest of the records, by group and entity.

        Include only groups and entities whose files are known to hold the records of `history`.
        """
        records: dict[str, Records[Any]] = {**history.versions, **history.storage}
        by_name = {}
        for name, own_records in records.items():
            stamps, file_records = self._held.get(name, ([], None))
            if name in self._appended:
                stamps = [stamp for _, stamp in self._files(name)]
                file_records = own_records if len(stamps) == len(own_records) else None
            if file_records == own_records:
                by_name[name] = (stamps, own_records.digest)
        return by_name

    def _names(self) -> list[str]:
        if not self._folder.is_dir():
            return []
        with os.scandir(self._folder) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir())

    def _files(self, name: str) -> list[tuple[Path, Stamp]]:
        """Return the record files of a group or entity, in order, each with its stamp."""
        folder = self._folder / name
        try:
            with os.scandir(folder) as entries:
                stats = {
                    entry.name: entry.stat() for entry in entries if entry.name.endswith(".yaml")
                }
        except OSError:
            return []
        files = []
        for number, file in enumerate(sorted(stats, key=lambda entry: entry.zfill(10)), start=1):
            if file != f"{number}.yaml":
                message = f"{record_title(name, number)} is missing"
                raise CatalogError([Problem(message, str(folder))])
            files.append((folder / file, stamp_of_stat(stats[file])))
        return files

    def _parsed(self, name: str, files: Sequence[tuple[Path, Stamp]]) -> Records[Any]:
        read_file: Callable[[Path, str, int], Any] = _read_version if "." in name else _read_storage
        records = []
        for number, (file, stamp) in enumerate(files, start=1):
            cached = self._read.get(file)
            if cached is None or cached[0] != stamp:
                cached = self._read[file] = (stamp, read_file(file, name, number))
            records.append(cached[1])
        return version_records(records) if "." in name else storage_records(records)

    def append(self, added: Additions) -> None:
        """Write the files of new records durably. Raise `CatalogError` if one already exists."""
        self._appended = {record.group for record in added.versions}
        self._appended |= {record.entity for record in added.storage}
        for version in added.versions:
            content = {"features": features_record(version)}
            self._write(version.group, version, content)
        for record in added.storage:
            self._write(record.entity, record, record_of(record))

    def require(self, published: History, written: History) -> None:
        """Raise `CatalogError` if a record of `published` is missing or different in `written`."""
        problems = [
            *self._lost(published.versions, written.versions),
            *self._lost(published.storage, written.storage),
        ]
        if problems:
            raise CatalogError(problems)

    def _lost(
        self, published: Mapping[str, Sequence[R]], written: Mapping[str, Sequence[R]]
    ) -> list[Problem]:
        """Return a problem for each published record that is missing or was changed."""
        problems = []
        for name, records in published.items():
            if written.get(name) is records:
                continue
            for record in records:
                matches = written.get(name, ())[record.number - 1 : record.number]
                if not matches or repr(matches[0]) != repr(record):
                    reason = "was changed after" if matches else "was removed after"
                    title = record_title(name, record.number)
                    message = f"{title} {reason} it was published: restore it from version control"
                    problems.append(Problem(message, str(self._file(name, record.number))))
        return problems

    def _write(self, name: str, record: _Record, content: Mapping[str, Any]) -> None:
        file = self._file(name, record.number)
        if file.exists():
            message = (
                f"{record_title(name, record.number)} was written in the meantime: "
                "run 'kirana apply' again"
            )
            raise CatalogError([Problem(message, str(file))])
        file.parent.mkdir(parents=True, exist_ok=True)
        fields = {"fingerprint": f"{record.fingerprint:08x}", **content}
        text = NOTE + yaml.safe_dump(fields, sort_keys=False, default_flow_style=None, width=100)
        write_durably(file, text.encode())

    def _file(self, name: str, number: int) -> Path:
        return self._folder / name / f"{number}.yaml"


def _read_version(file: Path, group: str, number: int) -> SchemaVersion:
    try:
        record = yaml.load(file.read_bytes(), SafeLoader)
        version = parse_version(group, number, record["features"])
        fingerprint = int(record["fingerprint"], 16)
    except (OSError, yaml.YAMLError, ValueError, KeyError, TypeError) as error:
        raise CatalogError([Problem(f"this is not a schema version: {error}", str(file))]) from None
    _require_fingerprint(version.fingerprint, fingerprint, file)
    return version


def _read_storage(file: Path, entity: str, number: int) -> StorageRecord:
    try:
        record = yaml.load(file.read_bytes(), SafeLoader)
        storage = parse_record(entity, number, record)
        fingerprint = int(record["fingerprint"], 16)
    except (OSError, yaml.YAMLError, AttributeError, ValueError, KeyError, TypeError) as error:
        raise CatalogError([Problem(f"this is not a storage record: {error}", str(file))]) from None
    _require_fingerprint(storage.fingerprint, fingerprint, file)
    return storage


def _require_fingerprint(computed: int, written: int, file: Path) -> None:
    if computed != written:
        message = "this file was changed after it was published: restore it from version control"
        raise CatalogError([Problem(message, str(file))])
