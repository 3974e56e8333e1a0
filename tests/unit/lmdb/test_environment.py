"""LMDB environments: shared within a process, growing maps, writes by several processes."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import lmdb
import pytest

from kirana.errors import ConfigurationError, KiranaError
from kirana.lmdb.environment import Environment, open_environment
from kirana.stores.lmdb import LmdbFeatureStore
from tests.store_calls import read_values, write_rows
from tests.support import ByOrder

SMALL = 1 << 20
TIMEOUT_S = 60
"""Seconds after which a call that hangs makes its test fail."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "lmdb"


@pytest.fixture
async def environment(folder: Path) -> AsyncIterator[Environment]:
    environment = open_environment(folder, SMALL)
    yield environment
    environment.close()


def putting(database: Any, rows: dict[bytes, bytes]) -> Callable[[Any], int]:
    """Return a job that stores rows and returns how many it stored."""

    def work(txn: Any) -> int:
        for key, value in rows.items():
            txn.put(key, value, db=database)
        return len(rows)

    return work


def getting(database: Any, key: bytes) -> Callable[[Any], bytes | None]:
    """Return a job that returns the value of a key."""
    return lambda txn: txn.get(key, None, database)


def counting(database: Any) -> Callable[[Any], int]:
    """Return a job that returns the number of rows of a database."""
    return lambda txn: txn.stat(database)["entries"]


def block_writer(environment: Environment) -> threading.Event:
    """Block the writer thread in a job until the returned event is set.

    Jobs that are submitted meanwhile wait.
    """
    running, released = threading.Event(), threading.Event()

    def work(txn: Any) -> None:
        running.set()
        assert released.wait(TIMEOUT_S)

    environment.submit(work)
    assert running.wait(TIMEOUT_S)
    return released


# sharing


def test_a_folder_is_opened_once_per_process(folder: Path) -> None:
    first = open_environment(folder)
    second = open_environment(folder.parent / "." / folder.name)
    assert first is second
    first.close()
    database = second.database(b"rows")
    assert second.submit(putting(database, {b"a": b"1"})).result(TIMEOUT_S) == 1
    second.close()


def test_a_link_to_a_folder_opens_the_same_environment(folder: Path, tmp_path: Path) -> None:
    first = open_environment(folder)
    (tmp_path / "link").symlink_to(folder)
    second = open_environment(tmp_path / "link")
    assert first is second
    first.close()
    second.close()


def test_a_folder_is_opened_again_after_the_last_close(folder: Path) -> None:
    first = open_environment(folder)
    first.submit(putting(first.database(b"rows"), {b"a": b"1"})).result(TIMEOUT_S)
    first.close()
    again = open_environment(folder)
    assert again is not first
    assert again.read(getting(again.database(b"rows"), b"a")) == b"1"
    again.close()


def test_different_folders_are_different_environments(tmp_path: Path) -> None:
    first, second = open_environment(tmp_path / "a"), open_environment(tmp_path / "b")
    first.submit(putting(first.database(b"rows"), {b"a": b"1"})).result(TIMEOUT_S)
    assert second.read(getting(second.database(b"rows"), b"a")) is None
    first.close()
    second.close()


def test_threads_can_open_write_and_close_a_folder_concurrently(folder: Path) -> None:
    def use(name: int) -> None:
        for number in range(10):
            environment = open_environment(folder)
            database = environment.database(b"rows")
            key = f"{name}:{number}".encode()
            environment.submit(putting(database, {key: b"1"})).result(TIMEOUT_S)
            assert environment.read(getting(database, key)) == b"1"
            environment.close()

    with ThreadPoolExecutor(4) as pool:
        for future in [pool.submit(use, name) for name in range(4)]:
            future.result(TIMEOUT_S)
    environment = open_environment(folder)
    assert environment.read(counting(environment.database(b"rows"))) == 40
    environment.close()


def test_a_folder_can_be_opened_while_its_last_user_closes_it(folder: Path) -> None:
    """A pending write delays the close, so the folder opens before, during or after the close."""
    with ThreadPoolExecutor(1) as pool:
        for number in range(30):
            environment = open_environment(folder)
            database = environment.database(b"rows")
            released = block_writer(environment)
            written = environment.submit(putting(database, {str(number).encode(): b"1"}))
            closed = pool.submit(environment.close)
            released.set()
            again = open_environment(folder)
            assert written.result(TIMEOUT_S) == 1
            closed.result(TIMEOUT_S)
            assert again.read(getting(again.database(b"rows"), str(number).encode())) == b"1"
            again.close()


def test_a_write_to_a_closed_environment_fails_and_does_not_hang(folder: Path) -> None:
    environment = open_environment(folder)
    database = environment.database(b"rows")
    environment.close()
    with pytest.raises((KiranaError, RuntimeError)):
        environment.submit(putting(database, {b"a": b"1"})).result(5)


# folders that can't be opened


@pytest.mark.parametrize("stored_format", [b"2", b"", b"kirana"])
def test_a_folder_in_a_different_format_is_refused(folder: Path, stored_format: bytes) -> None:
    folder.mkdir()
    with lmdb.open(str(folder), max_dbs=8) as raw, raw.begin(write=True) as txn:
        txn.put(b"format", stored_format, db=raw.open_db(b"meta", txn))
    for _ in range(2):
        with pytest.raises(ConfigurationError, match="format") as caught:
            open_environment(folder)
        assert str(folder) in caught.value.message
    with lmdb.open(str(folder), max_dbs=8) as raw, raw.begin() as txn:
        assert txn.get(b"format", db=raw.open_db(b"meta", txn)) == stored_format


def test_a_file_is_refused_as_a_folder(folder: Path) -> None:
    folder.write_text("a file")
    with pytest.raises(ConfigurationError, match="can't open") as caught:
        open_environment(folder)
    assert str(folder) in caught.value.message
    assert folder.read_text() == "a file"


def test_a_folder_with_other_data_is_refused(folder: Path) -> None:
    folder.mkdir()
    (folder / "data.mdb").write_bytes(b"this is no database" * 1_000)
    for _ in range(2):
        with pytest.raises(ConfigurationError, match="can't open"):
            open_environment(folder)


# writes


async def test_concurrent_writes_are_all_stored(environment: Environment) -> None:
    database = environment.database(b"rows")
    rows = [{f"{i}".encode(): b"x" * i} for i in range(500)]
    counts = await asyncio.gather(*(environment.write(putting(database, row)) for row in rows))
    assert counts == [1] * 500
    assert environment.read(counting(database)) == 500


async def test_a_job_sees_the_writes_of_earlier_jobs(environment: Environment) -> None:
    database = environment.database(b"rows")

    def increment(txn: Any) -> int:
        number = int(txn.get(b"n", b"0", database)) + 1
        txn.put(b"n", str(number).encode(), db=database)
        return number

    numbers = await asyncio.gather(*(environment.write(increment) for _ in range(200)))
    assert numbers == list(range(1, 201))


async def test_a_failing_job_writes_nothing_and_does_not_affect_others(
    environment: Environment,
) -> None:
    database = environment.database(b"rows")

    def failing(txn: Any) -> None:
        txn.put(b"half", b"x", db=database)
        raise ValueError("a mistake")

    released = block_writer(environment)
    jobs = [environment.write(putting(database, {f"{i}".encode(): b"1"})) for i in range(20)]
    jobs.insert(10, environment.write(failing))  # type: ignore[arg-type]
    pending = asyncio.gather(*jobs, return_exceptions=True)
    await asyncio.sleep(0)
    released.set()
    results = await pending
    assert isinstance(results.pop(10), ValueError)
    assert results == [1] * 20
    assert environment.read(counting(database)) == 20
    assert environment.read(getting(database, b"half")) is None


async def test_cancelling_a_write_does_not_affect_others(environment: Environment) -> None:
    database = environment.database(b"rows")
    released = block_writer(environment)
    cancelled = asyncio.ensure_future(environment.write(putting(database, {b"a": b"1"})))
    other = asyncio.ensure_future(environment.write(putting(database, {b"b": b"1"})))
    await asyncio.sleep(0)
    cancelled.cancel()
    released.set()
    assert await other == 1
    assert environment.read(getting(database, b"b")) == b"1"


async def test_the_map_grows_while_it_is_written_and_read(environment: Environment) -> None:
    database = environment.database(b"rows")
    jobs: list[Future[int]] = [
        environment.submit(putting(database, {f"{number:03}".encode(): bytes([number]) * 100_000}))
        for number in range(100)
    ]
    for number, job in enumerate(jobs):
        job.result(TIMEOUT_S)
        assert (
            environment.read(getting(database, f"{number:03}".encode()))
            == bytes([number]) * 100_000
        )
    assert environment.read(counting(database)) == 100


async def test_a_value_larger_than_the_map_is_written(environment: Environment) -> None:
    database = environment.database(b"rows")
    await environment.write(putting(database, {b"a": b"x" * (9 * SMALL)}))
    value = environment.read(getting(database, b"a"))
    assert value is not None
    assert len(value) == 9 * SMALL


# other processes

CHILD = """
import sys
from pathlib import Path
from kirana.lmdb.environment import open_environment

environment = open_environment(Path(sys.argv[1]), 1 << 20)
database = environment.database(b"rows")
print("ready", flush=True)
for line in sys.stdin:
    command, name, size = line.split()
    if command == "put":
        def work(txn):
            txn.put(name.encode(), b"y" * int(size), db=database)
        environment.submit(work).result()
        print("done", flush=True)
    else:
        value = environment.read(lambda txn: txn.get(name.encode(), None, database))
        print("none" if value is None else len(value), flush=True)
environment.close()
"""


class Child:
    """A process that opens a folder, and writes and reads rows on command."""

    def __init__(self, folder: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.line() == "ready"

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def send(self, command: str, name: str, size: int = 0) -> str:
        """Send a command and return the reply.

        The reply to "put", which stores a value of `size` bytes, is "done". The reply to "get" is
        the size of the stored value, or "none".
        """
        assert self.process.stdin is not None
        self.process.stdin.write(f"{command} {name} {size}\n")
        self.process.stdin.flush()
        return self.line()

    def stop(self) -> int:
        """Let the process end by itself, and return its exit code."""
        self.process.communicate(timeout=TIMEOUT_S)
        return self.process.returncode

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate(timeout=TIMEOUT_S)


@pytest.fixture
def child(folder: Path) -> Iterator[Child]:
    started = Child(folder)
    yield started
    started.kill()


def test_a_process_reads_a_map_that_another_process_has_grown(
    environment: Environment, child: Child
) -> None:
    database = environment.database(b"rows")
    for number in range(12):
        assert child.send("put", f"child-{number}", 700_000) == "done"
        value = environment.read(getting(database, f"child-{number}".encode()))
        assert value == b"y" * 700_000
        job = environment.submit(putting(database, {f"here-{number}".encode(): b"z" * 300_000}))
        assert job.result(TIMEOUT_S) == 1
        assert child.send("get", f"here-{number}") == "300000"
    assert environment.read(counting(database)) == 24
    assert child.stop() == 0


def test_a_process_writes_to_a_map_that_another_process_has_grown(
    environment: Environment, child: Child
) -> None:
    database = environment.database(b"rows")
    for number in range(5):
        assert child.send("put", f"child-{number}", 2_000_000) == "done"
        job = environment.submit(putting(database, {f"here-{number}".encode(): b"z" * 1_500_000}))
        assert job.result(TIMEOUT_S) == 1
    assert environment.read(counting(database)) == 10


def test_a_database_opens_in_a_map_that_another_process_has_grown(
    environment: Environment, child: Child
) -> None:
    assert child.send("put", "child", 5_000_000) == "done"
    database = environment.database(b"more")
    assert environment.submit(putting(database, {b"a": b"1"})).result(TIMEOUT_S) == 1


def test_two_processes_can_write_and_read_concurrently(
    environment: Environment, child: Child
) -> None:
    database = environment.database(b"rows")
    jobs = [
        environment.submit(putting(database, {f"here-{number}".encode(): b"z" * 50_000}))
        for number in range(60)
    ]
    for number in range(60):
        assert child.send("put", f"child-{number}", 50_000) == "done"
        assert environment.read(getting(database, f"child-{number}".encode())) == b"y" * 50_000
    for number, job in enumerate(jobs):
        assert job.result(TIMEOUT_S) == 1
        assert child.send("get", f"here-{number}") == "50000"
    assert environment.read(counting(database)) == 120


async def test_the_feature_store_reads_rows_that_another_process_wrote(
    folder: Path, environment: Environment
) -> None:
    store = LmdbFeatureStore.open(f"lmdb://{folder}?map_bytes={SMALL}", setting="features")
    script = (
        "import asyncio, sys\n"
        "from kirana.stores import open_feature_store\n"
        "from tests.store_calls import write_rows\n"
        "from tests.support import ByOrder\n"
        "async def main():\n"
        "    store = open_feature_store(sys.argv[1])\n"
        "    rows = {f'{i}'.encode(): b'x' * 1000 for i in range(20_000)}\n"
        "    codec = ByOrder(lambda value: (1, False))\n"
        "    await write_rows(store, list(rows), list(rows.values()), codec)\n"
        "    await store.close()\n"
        "asyncio.run(main())\n"
    )
    completed = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", script, f"lmdb://{folder}"],
        timeout=TIMEOUT_S,
        check=False,
    )
    assert completed.returncode == 0
    assert await read_values(store, [b"0", b"19999", b"20000"]) == [b"x" * 1000, b"x" * 1000, None]
    assert await write_rows(store, [b"0"], [b"new"], ByOrder(lambda value: (2, False))) == 1
    await store.close()


def test_acknowledged_rows_survive_a_kill(folder: Path) -> None:
    child = Child(folder)
    acknowledged = [f"row-{number}" for number in range(50)]
    for name in acknowledged:
        assert child.send("put", name, 40_000) == "done"
    assert child.process.stdin is not None
    child.process.stdin.writelines(f"put more-{number} 40000\n" for number in range(200))
    child.process.stdin.flush()
    child.process.send_signal(signal.SIGKILL)
    child.process.communicate(timeout=TIMEOUT_S)
    environment = open_environment(folder, SMALL)
    database = environment.database(b"rows")
    for name in acknowledged:
        assert environment.read(getting(database, name.encode())) == b"y" * 40_000
    for number in range(200):
        value = environment.read(getting(database, f"more-{number}".encode()))
        assert value in (None, b"y" * 40_000)
    environment.close()


def test_a_killed_reader_does_not_block_a_writer(environment: Environment, child: Child) -> None:
    database = environment.database(b"rows")
    assert child.send("get", "nothing") == "none"
    child.kill()
    job = environment.submit(putting(database, {b"a": b"x" * (3 * SMALL)}))
    assert job.result(TIMEOUT_S) == 1
