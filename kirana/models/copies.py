"""Copies of the models that revisions use, each named by the digest of its content.

    ROOT/.kirana/<sha256>             a model of one file
    ROOT/.kirana/<sha256>/            a model with external data: its files under their own names
    ROOT/.kirana/catalogs/<id>.json   the digests of the copies that each revision of a catalog uses

The digest of a model of one file is the SHA-256 of the file. The digest of a model of several files
is the SHA-256 of the lines `<sha256 of the file>  <name>`, sorted by name, each with a newline at
its end.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import orjson

from kirana.catalog.durable import sync_folder, write_durably
from kirana.catalog.objects import ModelObject
from kirana.errors import ConfigurationError, Conflict
from kirana.urls import folder_of

_CHUNK_BYTES = 1 << 20

_NEW = ".new-"
"""The prefix of the temporary folders in which copies are made."""

_ABANDONED_S = 86_400
"""Seconds after which a temporary folder is taken to be abandoned."""


def digest_of(folder: Path, files: Iterable[str]) -> str:
    """Read `files` in `folder`; return the digest of the model that consists of them."""
    digests = {}
    for name in files:
        with (folder / name).open("rb") as file:
            digests[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return _joint_digest(digests)


def _joint_digest(digests: Mapping[str, str]) -> str:
    """Return the digest of a model from the digests of its files by name."""
    if len(digests) == 1:
        return next(iter(digests.values()))
    lines = "".join(f"{digests[name]}  {name}\n" for name in sorted(digests))
    return hashlib.sha256(lines.encode()).hexdigest()


class ModelCopies:
    """The copies below one model root, which several catalogs may share."""

    @classmethod
    def below(cls, url: str) -> ModelCopies:
        """Return the copies below the model root at a `file://` URL.

        Raise `ConfigurationError` if the URL is invalid.
        """
        return cls(folder_of(url, "file", setting="models"))

    def __init__(self, root: Path) -> None:
        self._folder = root / ".kirana"
        self._uses_folder = self._folder / "catalogs"

    def path(self, model: ModelObject) -> Path | None:
        """Return the path of the ONNX file in a model's copy, or None if the copy is missing.

        The model must have a digest.
        """
        assert model.sha256 is not None
        copy = self._folder / model.sha256
        if copy.is_dir():
            copy /= Path(model.path).name
        return copy if copy.is_file() else None

    def checked_path(self, model: ModelObject) -> Path:
        """Return the path of the ONNX file in a model's copy, after reading and checking the copy.

        Raise `ConfigurationError` if the model has no digest, or if the copy is missing or was
        changed.
        """
        if model.sha256 is None:
            raise ConfigurationError(
                f"model '{model.name}' was published without a digest of its file: run "
                "'kirana apply' again",
                field="path",
            )
        path = self.path(model)
        copy = self._folder / model.sha256
        if path is None:
            raise ConfigurationError(
                f"the copy {copy} of model '{model.name}' is missing: restore it, or run 'kirana "
                f"apply' to publish {model.path} as it is now",
                field="sha256",
            )
        if not self._is_intact(copy):
            raise ConfigurationError(
                f"model '{model.name}': its copy {copy} was changed: remove it, and run "
                "'kirana apply'",
                field="sha256",
            )
        return path

    @staticmethod
    def _is_intact(copy: Path) -> bool:
        """Return whether the bytes of a copy match the digest that names it."""
        if copy.is_dir():
            return digest_of(copy, _files_below(copy)) == copy.name
        return digest_of(copy.parent, (copy.name,)) == copy.name

    def add(self, name: str, folder: Path, files: tuple[str, ...], digest: str) -> None:
        """Copy the files of the model `name` from `folder`, unless there is a copy for `digest`.

        `files` are relative to `folder`, the ONNX file first. Raise `Conflict` if they do not match
        `digest`, and `OSError` if they can't be copied.
        """
        target = self._folder / digest
        if target.exists():
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._folder, prefix=_NEW) as temporary:
            digests = {file: _copy(folder / file, Path(temporary, "copy", file)) for file in files}
            if _joint_digest(digests) != digest:
                raise Conflict(
                    f"model '{name}': its file was changed during the publish: try again"
                )
            copy = Path(temporary, "copy")
            copy = copy / files[0] if len(files) == 1 else copy
            try:
                copy.rename(target)
            except OSError:
                if not target.exists():  # Another publisher may have made the same copy.
                    raise
        sync_folder(self._folder)

    def record_use(self, catalog: str, revision: int, digests: Iterable[str]) -> None:
        """Record that a revision uses the copies for `digests`, so that `prune` keeps them."""
        with self._lock():
            revisions = self._read_uses(catalog)
            used = {*revisions.get(str(revision), ()), *digests}
            self._write_uses(catalog, {**revisions, str(revision): sorted(used)})

    def prune(self, catalog: str, oldest: int) -> None:
        """Forget the revisions of `catalog` before `oldest`; remove copies that no revision uses.

        Copies that revisions of other catalogs use are kept. Abandoned temporary folders are
        removed too.
        """
        if not self._folder.is_dir():
            return
        with self._lock():
            kept = {
                number: digests
                for number, digests in self._read_uses(catalog).items()
                if int(number) >= oldest
            }
            self._write_uses(catalog, kept)
            used = {
                digest
                for path in self._uses_folder.glob("*.json")
                for digests in self._read_uses(path.stem).values()
                for digest in digests
            }
            for copy in self._folder.iterdir():
                if len(copy.name) == 64 and copy.name not in used:
                    shutil.rmtree(copy) if copy.is_dir() else copy.unlink()
                elif copy.name.startswith(_NEW) and _is_abandoned(copy):
                    shutil.rmtree(copy)

    def _read_uses(self, catalog: str) -> dict[str, list[str]]:
        """Return the digests that each revision of a catalog uses, by revision number."""
        try:
            revisions: dict[str, list[str]] = orjson.loads(self._uses_path(catalog).read_bytes())
        except FileNotFoundError:
            return {}
        return revisions

    def _write_uses(self, catalog: str, revisions: Mapping[str, list[str]]) -> None:
        """Store the digests that each revision of a catalog uses."""
        write_durably(self._uses_path(catalog), orjson.dumps(revisions))

    def _uses_path(self, catalog: str) -> Path:
        """Return the path of the file with the digests that each revision of a catalog uses."""
        return self._uses_folder / f"{catalog}.json"

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """Hold the lock of this model root. Block while another process holds it."""
        self._uses_folder.mkdir(parents=True, exist_ok=True)
        # The folder may be shared with a catalog directory. In that case, the process that
        # publishes already holds the lock of the file `lock`, so a different file is needed.
        with (self._folder / "models.lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _is_abandoned(folder: Path) -> bool:
    """Return whether a temporary folder is abandoned."""
    return time.time() - folder.stat().st_mtime > _ABANDONED_S


def _files_below(folder: Path) -> list[str]:
    """Return the files in a folder and its subfolders, as paths relative to the folder."""
    return [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]


def _copy(source: Path, target: Path) -> str:
    """Copy a file durably, and make the copy read-only; return the SHA-256 of its bytes."""
    digest = hashlib.sha256()
    target.parent.mkdir(parents=True, exist_ok=True)
    with source.open("rb") as read, target.open("xb") as written:
        while chunk := read.read(_CHUNK_BYTES):
            digest.update(chunk)
            written.write(chunk)
        written.flush()
        os.fsync(written.fileno())
    target.chmod(0o444)
    return digest.hexdigest()
