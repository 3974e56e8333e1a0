"""The append-only records of a catalog as files: `versions/<name>/<n>.yaml`.

`<name>` is a feature group (`product.stats`) for schema versions, and an entity for how its rows
are stored. Each file carries the fingerprint of what is in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import yaml

from kirana.catalog.durable import write_durably
from kirana.catalog.history import Additions, History
from kirana.catalog.schema_records import features_record, parse_version
from kirana.catalog.storage_records import StorageRecord, parse_record, record_of
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

    def read(self) -> History:
        """Raises `CatalogError` for a file that is missing, damaged, or was changed."""
        versions: dict[str, list[SchemaVersion]] = {}
        storage: dict[str, list[StorageRecord]] = {}
        for folder in sorted(self._folder.glob("*/")):
            numbered = sorted(folder.glob("*.yaml"), key=lambda file: file.stem.zfill(5))
            for number, file in enumerate(numbered, start=1):
                if file.stem != str(number):
                    message = f"record {number} of '{folder.name}' is missing"
                    raise CatalogError([Problem(message, str(folder))])
                if "." in folder.name:
                    version = _read_version(file, folder.name, number)
                    versions.setdefault(folder.name, []).append(version)
                else:
                    record = _read_storage(file, folder.name, number)
                    storage.setdefault(folder.name, []).append(record)
        return History(versions, storage)

    def append(self, added: Additions) -> None:
        """Write new records durably."""
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
            for record in records:
                found = written.get(name, ())[record.number - 1 : record.number]
                if not found or repr(found[0]) != repr(record):
                    what = "was changed after" if found else "is gone since"
                    message = f"it {what} it was published: restore it from version control"
                    problems.append(Problem(message, str(self._file(name, record.number))))
        return problems

    def _write(self, name: str, record: _Record, content: Mapping[str, Any]) -> None:
        file = self._file(name, record.number)
        file.parent.mkdir(parents=True, exist_ok=True)
        whole = {"fingerprint": f"{record.fingerprint:08x}", **content}
        text = NOTE + yaml.safe_dump(whole, sort_keys=False, default_flow_style=None, width=100)
        write_durably(file, text.encode())

    def _file(self, name: str, number: int) -> Path:
        return self._folder / name / f"{number}.yaml"


def _read_version(file: Path, group: str, number: int) -> SchemaVersion:
    try:
        record = yaml.safe_load(file.read_bytes())
        version = parse_version(group, number, record["features"])
        printed = int(record["fingerprint"], 16)
    except (OSError, yaml.YAMLError, ValueError, KeyError, TypeError) as error:
        raise CatalogError([Problem(f"this is no schema version: {error}", str(file))]) from None
    _require_print(version.fingerprint, printed, file)
    return version


def _read_storage(file: Path, entity: str, number: int) -> StorageRecord:
    try:
        record = yaml.safe_load(file.read_bytes())
        storage = parse_record(entity, number, record)
        printed = int(record["fingerprint"], 16)
    except (OSError, yaml.YAMLError, AttributeError, ValueError, KeyError, TypeError) as error:
        raise CatalogError([Problem(f"this is no storage record: {error}", str(file))]) from None
    _require_print(storage.fingerprint, printed, file)
    return storage


def _require_print(found: int, written: int, file: Path) -> None:
    if found != written:
        message = "it was changed after it was published; restore it from version control"
        raise CatalogError([Problem(message, str(file))])
