"""The catalog in a directory: YAML files are the source, `.kirana/revisions/<n>/` what is live.

    DIR/*.yaml                        what people edit
    DIR/versions/<group>/<n>.yaml     schema versions, append-only, to be committed with it
    DIR/.kirana/revisions/<n>/        one file, `catalog.json`: a whole published revision
    DIR/.kirana/CURRENT               the number of the live one, replaced by a rename

Replicas read only what is published. Publishing is done under a file lock, so that of two at
once the second sees what the first has done.
"""

from __future__ import annotations

import fcntl
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import yaml
from pydantic import ValidationError

from kirana.catalog.documents import Document, read_documents
from kirana.catalog.objects import KINDS, FeatureObject
from kirana.catalog.snapshot import Catalog
from kirana.catalog.validation import (
    Placed,
    Signatures,
    feature_of,
    parse_documents,
    validate,
)
from kirana.errors import CatalogError, Conflict, Problem, Unknown
from kirana.schema import SchemaVersion


@dataclass(frozen=True, slots=True)
class Published:
    """What `publish` did: `changed` is False where the live revision is the same already."""

    revision: int
    changed: bool
    new_versions: tuple[SchemaVersion, ...]


class DirectoryCatalog:
    """Implements `CatalogSource` over a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self._state = self.folder / ".kirana"
        self._current = self._state / "CURRENT"
        self._versions = self.folder / "versions"

    def check(self, signatures: Signatures | None) -> tuple[Catalog, tuple[SchemaVersion, ...]]:
        """Validate the source; return it with the schema versions that publishing would add.

        Raises `CatalogError` with every problem that was found.
        """
        versions = self._read_versions()
        self._check_history(versions)
        placed = parse_documents(read_documents(self.folder))
        if not placed:
            raise CatalogError([Problem("its files hold no object", str(self.folder))])
        catalog = validate(placed, versions, signatures)
        added = tuple(
            group.current
            for group in catalog.groups.values()
            if len(group.versions) > len(versions.get(group.name, ()))
        )
        return catalog, added

    def publish(
        self, signatures: Signatures | None, *, expected_revision: int | None = None
    ) -> Published:
        """Make the source the next revision, as one step.

        Raises `CatalogError` if it is not valid, `Conflict` if another revision than
        `expected_revision` is live.
        """
        with self._lock():
            live = self.current()
            if expected_revision is not None and live != expected_revision:
                raise Conflict(
                    f"revision {live} is live, not {expected_revision}", field="expected_revision"
                )
            catalog, added = self.check(signatures)
            content = _serialize(catalog)
            if live and not added and self._read_revision(live) == content:
                return Published(live, False, ())
            for version in added:
                self._write_version(version)
            revision = max([live, *self._revision_numbers()]) + 1
            folder = self._revision_file(revision).parent
            folder.mkdir(parents=True)
            _write_durably(folder / "catalog.json", content)
            _write_durably(self._current, str(revision).encode())
            return Published(revision, True, added)

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
            placed = [_placed(each, file) for each in content["objects"]]
            versions = _parse_versions(content["versions"])
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
            published = _parse_versions(
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

    def _revision_file(self, revision: int) -> Path:
        return self._state / "revisions" / str(revision) / "catalog.json"

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
                    version = _parse_version(folder.name, number, record["features"])
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
            "features": _features_record(version),
        }
        note = "# Written by 'kirana apply'. Stored rows depend on it: never edit, commit it.\n"
        text = note + yaml.safe_dump(record, sort_keys=False, default_flow_style=None, width=100)
        _write_durably(file, text.encode())


def _placed(record: Mapping[str, Any], file: Path) -> Placed:
    model = KINDS[record["kind"]]
    return Placed(model.model_validate(record), Document(str(file), record, {}))


def _features_record(version: SchemaVersion) -> list[dict[str, Any]]:
    records = []
    for feature in version.features:
        record: dict[str, Any] = {"name": feature.name, "dtype": feature.dtype}
        if feature.shape:
            record["shape"] = list(feature.shape)
        if feature.default is not None:
            default = feature.default
            record["default"] = _spelled(list(default) if isinstance(default, tuple) else default)
        records.append(record)
    return records


def _parse_version(group: str, number: int, features: Sequence[Mapping[str, Any]]) -> SchemaVersion:
    parsed = tuple(feature_of(FeatureObject.model_validate(dict(each))) for each in features)
    return SchemaVersion(group, number, parsed)


def _parse_versions(record: Mapping[str, Any]) -> dict[str, list[SchemaVersion]]:
    return {
        group: [_parse_version(group, at, each) for at, each in enumerate(versions, start=1)]
        for group, versions in record.items()
    }


def _serialize(catalog: Catalog) -> bytes:
    objects = sorted(catalog.objects, key=lambda each: (list(KINDS).index(each.kind), each.name))
    content = {
        "objects": [_spelled(each.model_dump(by_alias=True)) for each in objects],
        "versions": {
            name: [_features_record(version) for version in catalog.groups[name].versions]
            for name in sorted(catalog.groups)
        },
    }
    return orjson.dumps(content, option=orjson.OPT_INDENT_2)


def _spelled(value: Any) -> Any:
    """Spell the floats that JSON lacks, at any depth."""
    if isinstance(value, dict):
        return {name: _spelled(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_spelled(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


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
