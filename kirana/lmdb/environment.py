"""One LMDB environment a process and folder, shared by all who open it.

Reads run where they are called. Writes of all callers go to one thread, which commits those
that wait together, with one fsync. When the map is full the writer doubles it; readers in other
processes meet `MapResizedError` and follow. A map may only change while no transaction of its
process is open: a lock keeps writers apart, and a count of the readers tells when there is none.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import lmdb

from kirana.errors import ConfigurationError, StoreFull, Unavailable
from kirana.urls import folder_of, option_of

T = TypeVar("T")

FORMAT = b"1"
DEFAULT_MAP_BYTES = 64 << 20
_MAX_DATABASES = 8
_MAX_READERS = 1024
_GROUP_LIMIT = 1024

_shared: dict[Path, Environment] = {}
_shared_lock = threading.Lock()


@dataclass(slots=True)
class _Job:
    work: Callable[[Any], Any]
    done: Future[Any]


class Environment:
    """Use `open_environment`, and `close` once for each time it was opened."""

    def __init__(self, folder: Path, map_bytes: int) -> None:
        self.folder = folder
        self.users = 1
        self._readers = 0
        self._waiting = 0
        self._counting = threading.Lock()
        self._no_reader = threading.Condition(self._counting)
        self._writing = threading.Lock()
        self._submitting = threading.Lock()
        self._closed = False
        self._databases: dict[bytes, Any] = {}
        self._queue: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._env = lmdb.open(
                str(folder),
                map_size=map_bytes,
                max_dbs=_MAX_DATABASES,
                max_readers=_MAX_READERS,
            )
            self._env.reader_check()
            self._check_format()
        except (lmdb.Error, OSError) as error:
            raise ConfigurationError(f"can't open the LMDB folder {folder}: {error}") from error
        self._writer = threading.Thread(target=self._write_loop, name="lmdb-writer", daemon=True)
        self._writer.start()

    def _check_format(self) -> None:
        meta = self._env.open_db(b"meta")
        with self._env.begin(write=True, db=meta) as txn:
            found = txn.get(b"format")
            if found is None:
                txn.put(b"format", FORMAT)
            elif found != FORMAT:
                self._env.close()
                raise ConfigurationError(
                    f"the LMDB folder {self.folder} is of format {found!r}, this Kirana "
                    f"reads {FORMAT!r}: give another folder, or the Kirana that wrote it"
                )

    def database(self, name: bytes) -> Any:
        """Open (or make) a named database once; the handle serves every transaction."""
        while True:
            try:
                with self._writing, self._alone():
                    if name not in self._databases:
                        self._databases[name] = self._env.open_db(name)
                    return self._databases[name]
            except lmdb.MapResizedError:
                self._follow_map()
            except lmdb.MapFullError:
                self._grow_map()

    def read(self, work: Callable[[Any], T], database: Any = None) -> T:
        """Run `work` in a read transaction (of `database`, if given), on the caller's thread."""
        while True:
            try:
                return self._read(work, database)
            except lmdb.MapResizedError:
                self._follow_map()

    async def read_async(self, inline: bool, work: Callable[[Any], T], database: Any = None) -> T:
        """Run `work` on the event loop if `inline`, else in a thread.

        A map that has to be followed is always left to a thread: that waits for writers.
        """
        if inline:
            with suppress(lmdb.MapResizedError):
                return self._read(work, database)
        return await asyncio.to_thread(self.read, work, database)

    def _read(self, work: Callable[[Any], T], database: Any) -> T:
        with self._counting:
            self._readers += 1
        try:
            with self._env.begin(db=database) as txn:
                return work(txn)
        except lmdb.MapResizedError:
            raise
        except lmdb.Error as error:
            raise Unavailable(f"LMDB in {self.folder}: {error}") from error
        finally:
            with self._counting:
                self._readers -= 1
                if self._waiting and not self._readers:
                    self._no_reader.notify_all()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep readers out, once those that are in have left."""
        with self._no_reader:
            self._waiting += 1
            self._no_reader.wait_for(lambda: not self._readers)
            self._waiting -= 1
            yield

    async def write(self, work: Callable[[Any], T]) -> T:
        """Run `work` in a write transaction and return once it is on disk.

        `work` may run more than once (when the map had to grow) and together with the work of
        others: it must do nothing but read and write in its transaction.
        """
        return await asyncio.wrap_future(self.submit(work))

    def submit(self, work: Callable[[Any], T]) -> Future[T]:
        """`write` for callers without an event loop."""
        done: Future[T] = Future()
        with self._submitting:
            if self._closed:
                raise Unavailable(f"LMDB in {self.folder} is closed")
            self._queue.put(_Job(work, done))
        return done

    def close(self) -> None:
        # the lock is held to the end: who opens the folder meanwhile has to wait for it
        with _shared_lock:
            self.users -= 1
            if self.users:
                return
            with self._submitting:
                self._closed = True
                self._queue.put(None)
            self._writer.join()
            with self._writing, self._alone():
                self._env.close()
            _shared.pop(self.folder, None)

    def _write_loop(self) -> None:
        while (job := self._queue.get()) is not None:
            group = [job]
            stopping = False
            while len(group) < _GROUP_LIMIT and not self._queue.empty():
                more = self._queue.get()
                if more is None:
                    stopping = True
                    break
                group.append(more)
            self._commit(group)
            if stopping:
                return

    def _commit(self, group: list[_Job]) -> None:
        try:
            results = self._transact(group)
        except Exception as error:
            if len(group) > 1:
                for job in group:
                    self._commit([job])
                return
            failure: Exception = error
            if isinstance(error, lmdb.DiskError | OSError):
                failure = StoreFull(f"LMDB in {self.folder}: {error}")
            elif isinstance(error, lmdb.Error):
                failure = Unavailable(f"LMDB in {self.folder}: {error}")
            if group[0].done.set_running_or_notify_cancel():
                group[0].done.set_exception(failure)
            return
        for job, result in zip(group, results, strict=True):
            if job.done.set_running_or_notify_cancel():
                job.done.set_result(result)

    def _transact(self, group: list[_Job]) -> list[Any]:
        while True:
            try:
                with self._writing, self._env.begin(write=True) as txn:
                    return [job.work(txn) for job in group]
            except lmdb.MapFullError:
                self._grow_map()
            except lmdb.MapResizedError:
                self._follow_map()

    def _grow_map(self) -> None:
        with self._writing, self._alone():
            self._env.reader_check()
            self._env.set_mapsize(self._env.info()["map_size"] * 2)

    def _follow_map(self) -> None:
        with self._writing, self._alone():
            self._env.set_mapsize(0)


def open_environment(folder: Path, map_bytes: int = DEFAULT_MAP_BYTES) -> Environment:
    """Return this process's environment of `folder`, opened if it is the first.

    Raises `ConfigurationError` if the folder can't be opened or is of another format.
    """
    folder = folder.resolve()
    with _shared_lock:
        found = _shared.get(folder)
        if found is None:
            found = _shared[folder] = Environment(folder, map_bytes)
        else:
            found.users += 1
        return found


def open_by_url(url: str, *, setting: str) -> Environment:
    """Open `lmdb:///folder[?map_bytes=N]`; N is where the map starts, it grows by itself."""
    folder = folder_of(url, "lmdb", setting=setting)
    size = option_of(url, "map_bytes")
    if size is not None and not size.isdecimal():
        raise ConfigurationError(
            f"{setting}: map_bytes must be a number of bytes, not '{size}'", field=setting
        )
    try:
        return open_environment(folder, int(size) if size else DEFAULT_MAP_BYTES)
    except ConfigurationError as error:
        raise ConfigurationError(f"{setting}: {error.message}", field=setting) from error
