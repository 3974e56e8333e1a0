"""The bytes that revisions pin: copies of model files, each under the digest of what is in it.

    ROOT/.kirana/<sha256>             a model of one file
    ROOT/.kirana/<sha256>/            a model with external data: its files under their own names
    ROOT/.kirana/catalogs/<id>.json   which revision of a catalog names which copies

The digest of one file is its SHA-256. That of several is the SHA-256 of the lines
`<sha256 of the file>  <name>`, in the order of the names, each with a newline at its end.
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

_CHUNK_BYTES = 1 << 20
_NEW = ".new-"
_ABANDONED_S = 86_400


def digest_of(folder: Path, files: Iterable[str]) -> str:
    """Return the digest of a model that consists of `files` in `folder`."""
    digests = {}
    for name in files:
        with (folder / name).open("rb") as file:
            digests[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return _together(digests)


def _together(digests: Mapping[str, str]) -> str:
    if len(digests) == 1:
        return next(iter(digests.values()))
    lines = "".join(f"{digests[name]}  {name}\n" for name in sorted(digests))
    return hashlib.sha256(lines.encode()).hexdigest()


class ModelCopies:
    """The copies below one model root. Several catalogs may share it."""

    def __init__(self, root: Path) -> None:
        self._folder = root / ".kirana"
        self._notes = self._folder / "catalogs"

    def path(self, model: ModelObject) -> Path | None:
        """Return the ONNX file of a model's copy; None if the copy is gone."""
        assert model.sha256 is not None
        copy = self._folder / model.sha256
        if copy.is_dir():
            copy /= Path(model.path).name
        return copy if copy.is_file() else None

    def checked_path(self, model: ModelObject) -> Path:
        """Return the path of a copy whose bytes are those of the digest.

        Raises `ConfigurationError` if it is gone or was changed.
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
                f"model '{model.name}': its copy {copy} is gone: 'kirana apply' makes it again, if "
                "the file has not changed",
                field="sha256",
            )
        if not self._is_whole(copy):
            raise ConfigurationError(
                f"model '{model.name}': its copy {copy} was changed: remove it, and run "
                "'kirana apply'",
                field="sha256",
            )
        return path

    @staticmethod
    def _is_whole(copy: Path) -> bool:
        if copy.is_dir():
            return digest_of(copy, _files_below(copy)) == copy.name
        return digest_of(copy.parent, (copy.name,)) == copy.name

    def add(self, name: str, folder: Path, files: tuple[str, ...], digest: str) -> None:
        """Copy the files of the model `name`, unless that was done before.

        Raises `Conflict` if they are not those of `digest` any more.
        """
        target = self._folder / digest
        if target.exists():
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._folder, prefix=_NEW) as beside:
            digests = {each: _copy(folder / each, Path(beside, "copy", each)) for each in files}
            if _together(digests) != digest:
                raise Conflict(
                    f"model '{name}': its file was changed while it was published: try again"
                )
            made = Path(beside, "copy")
            made = made / files[0] if len(files) == 1 else made
            try:
                made.rename(target)
            except OSError:
                if not target.exists():  # another publisher was as fast
                    raise
        sync_folder(self._folder)

    def note(self, catalog: str, revision: int, digests: Iterable[str]) -> None:
        """Write down that a revision names these copies: they are not pruned before it."""
        with self._lock():
            revisions = self._read(catalog)
            named = {*revisions.get(str(revision), ()), *digests}
            self._write(catalog, {**revisions, str(revision): sorted(named)})

    def prune(self, catalog: str, oldest: int) -> None:
        """Forget the revisions of `catalog` before `oldest`, then remove what no catalog names."""
        if not self._folder.is_dir():
            return
        with self._lock():
            kept = {n: each for n, each in self._read(catalog).items() if int(n) >= oldest}
            self._write(catalog, kept)
            named = {
                digest
                for note in self._notes.glob("*.json")
                for digests in self._read(note.stem).values()
                for digest in digests
            }
            for copy in self._folder.iterdir():
                if len(copy.name) == 64 and copy.name not in named:
                    shutil.rmtree(copy) if copy.is_dir() else copy.unlink()
                elif copy.name.startswith(_NEW) and _is_old(copy):
                    # of a publisher that was killed
                    shutil.rmtree(copy)

    def _read(self, catalog: str) -> dict[str, list[str]]:
        try:
            found: dict[str, list[str]] = orjson.loads(self._note(catalog).read_bytes())
        except FileNotFoundError:
            return {}
        return found

    def _write(self, catalog: str, revisions: Mapping[str, list[str]]) -> None:
        write_durably(self._note(catalog), orjson.dumps(revisions))

    def _note(self, catalog: str) -> Path:
        return self._notes / f"{catalog}.json"

    @contextmanager
    def _lock(self) -> Iterator[None]:
        self._notes.mkdir(parents=True, exist_ok=True)
        # not "lock": where models lie in the folder of a catalog, that one is held by who publishes
        with (self._folder / "models.lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _is_old(folder: Path) -> bool:
    return time.time() - folder.stat().st_mtime > _ABANDONED_S


def _files_below(folder: Path) -> list[str]:
    return [str(each.relative_to(folder)) for each in folder.rglob("*") if each.is_file()]


def _copy(source: Path, target: Path) -> str:
    """Copy a file durably; return the SHA-256 of what was copied."""
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
