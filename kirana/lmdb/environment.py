"""LMDB environments: one per process and folder, shared by all stores that open the folder.

A read runs in the thread that calls it. One thread per environment runs the writes of all callers.
It commits writes that wait at the same time in one transaction.

When the memory map is full, the process that needs more space doubles the size of the map. Other
processes then get `MapResizedError` and adopt the new size. A process may change the size of its
map only while it has no open transaction. Therefore a lock admits one writer at a time, and the
open read transactions are counted.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import lmdb

from kirana.errors import ConfigurationError, StoreFull, Unavailable
from kirana.loop import request_threads
from kirana.urls import folder_of, option_of

T = TypeVar("T")

FORMAT = b"1"
"""The format of the folders that this version of Kirana reads and writes."""

DEFAULT_MAP_BYTES = 64 << 20
"""Default initial size of the memory map, in bytes."""

_MAX_DATABASES = 8
_MAX_READERS = 1024
_GROUP_LIMIT = 1024
"""Maximum number of writes in one transaction."""

_shared: dict[Path, Environment] = {}
"""The open environments of this process, by their resolved folder."""

_shared_lock = threading.Lock()


@dataclass(slots=True)
class _Job:
    """A write that waits for the writer thread, and the future of its result."""

    work: Callable[[Any], Any]
    done: Future[Any]


class Environment:
    """An LMDB environment that several stores of this process can use, from any thread.

    Get it from `open_environment`, and call `close` once per call of `open_environment`. `users` is
    the number of calls of `open_environment` minus the number of calls of `close`.
    """

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
        """Write `FORMAT` to a new folder.

        Raise `ConfigurationError` if the folder was written in a different format.
        """
        meta = self._env.open_db(b"meta")
        with self._env.begin(write=True, db=meta) as txn:
            stored_format = txn.get(b"format")
            if stored_format is None:
                txn.put(b"format", FORMAT)
            elif stored_format != FORMAT:
                self._env.close()
                raise ConfigurationError(
                    f"the LMDB folder {self.folder} has the format "
                    f"'{stored_format.decode(errors='replace')}', but this Kirana reads "
                    f"'{FORMAT.decode()}': use another folder, or the Kirana that wrote it"
                )

    def database(self, name: bytes) -> Any:
        """Return the handle of a named database, which all transactions can use.

        The database is created if it does not exist. The first call for a name in this process
        opens the database. Each call waits until this process has no open transaction.
        """
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
        """Run `work` in a read transaction, in the caller's thread, and return its result.

        `work` takes the transaction, whose default database is `database`. Raise `Unavailable` if
        LMDB fails.
        """
        while True:
            try:
                return self._read(work, database)
            except lmdb.MapResizedError:
                self._follow_map()

    async def read_async(self, inline: bool, work: Callable[[Any], T], database: Any = None) -> T:
        """Run `work` as `read` does: on the event loop if `inline`, in a thread otherwise.

        If another process has resized the map, `work` runs in a thread in any case, because
        adopting the new size waits for open transactions.
        """
        if inline:
            with suppress(lmdb.MapResizedError):
                return self._read(work, database)
        return await request_threads.run(partial(self.read, work, database))

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
        """Wait until no read transaction is open, and block new ones until the context ends."""
        with self._no_reader:
            self._waiting += 1
            self._no_reader.wait_for(lambda: not self._readers)
            self._waiting -= 1
            yield

    async def write(self, work: Callable[[Any], T]) -> T:
        """Run `work` in a write transaction. Return its result once the transaction is on disk.

        `work` runs in the writer thread. It may run more than once (for example, after the map
        has grown), and it may share its transaction with other writes. It must therefore have no
        effects outside of the transaction.

        Raise `StoreFull` if the disk is full or `work` raises an `OSError`. Raise `Unavailable` for
        any other error of LMDB, or if the environment is closed. Other errors of `work` are raised
        unchanged. An error undoes only the changes of this call.
        """
        return await asyncio.wrap_future(self.submit(work))

    def submit(self, work: Callable[[Any], T]) -> Future[T]:
        """Queue `work` for the writer thread, and return the future of its result. See `write`.

        For callers without an event loop. Raise `Unavailable` if the environment is closed.
        """
        done: Future[T] = Future()
        with self._submitting:
            if self._closed:
                raise Unavailable(f"LMDB in {self.folder} is closed")
            self._queue.put(_Job(work, done))
        return done

    def close(self) -> None:
        """Give up one use of the environment. The call that gives up the last use closes it.

        Closing blocks until all queued writes are done and no transaction is open.
        """
        # Hold the lock to the end, so that no call opens the folder before it is closed.
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
        """Commit queued writes in groups, until the queue holds None."""
        while (job := self._queue.get()) is not None:
            group = [job]
            stopping = False
            while len(group) < _GROUP_LIMIT and not self._queue.empty():
                next_job = self._queue.get()
                if next_job is None:
                    stopping = True
                    break
                group.append(next_job)
            self._commit(group)
            if stopping:
                return

    def _commit(self, group: list[_Job]) -> None:
        """Run writes in one transaction. If this fails, run each in a separate transaction.

        Set the results or errors of the writes.
        """
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
        """Run writes in one transaction, and return their results.

        If the map is full or was resized, change its size and run them again.
        """
        while True:
            try:
                with self._writing, self._env.begin(write=True) as txn:
                    return [job.work(txn) for job in group]
            except lmdb.MapFullError:
                self._grow_map()
            except lmdb.MapResizedError:
                self._follow_map()

    def _grow_map(self) -> None:
        """Double the size of the map."""
        with self._writing, self._alone():
            self._env.reader_check()
            self._env.set_mapsize(self._env.info()["map_size"] * 2)

    def _follow_map(self) -> None:
        """Adopt the size that another process has given the map."""
        with self._writing, self._alone():
            self._env.set_mapsize(0)


def open_environment(folder: Path, map_bytes: int = DEFAULT_MAP_BYTES) -> Environment:
    """Return this process's environment of `folder`, and open it if it is not open yet.

    `map_bytes` is the initial size of the map, used only if the environment is not open yet. The
    folder is created if it does not exist. Raise `ConfigurationError` if the folder can't be
    opened, or if another version of Kirana has written it in a different format.
    """
    folder = folder.resolve()
    with _shared_lock:
        environment = _shared.get(folder)
        if environment is None:
            environment = _shared[folder] = Environment(folder, map_bytes)
        else:
            environment.users += 1
        return environment


def open_by_url(url: str, *, setting: str) -> Environment:
    """Return the environment of the URL `lmdb:///folder[?map_bytes=N]`, as `open_environment` does.

    N is the initial size of the map in bytes. Raise `ConfigurationError` for `setting` if the URL
    is not valid or the folder can't be opened.
    """
    folder = folder_of(url, "lmdb", setting=setting)
    size = option_of(url, "map_bytes")
    if size is not None and not size.isdecimal():
        raise ConfigurationError(
            f"{setting}: 'map_bytes' must be a number of bytes, not '{size}'", field=setting
        )
    try:
        return open_environment(folder, int(size) if size else DEFAULT_MAP_BYTES)
    except ConfigurationError as error:
        raise ConfigurationError(f"{setting}: {error.message}", field=setting) from error
