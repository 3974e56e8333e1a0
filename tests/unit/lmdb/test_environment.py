"""One LMDB environment a process and folder, grown by whoever is full, shared by all."""

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
"""Only so that a hang is a failure: nothing waits for it."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "lmdb"


@pytest.fixture
async def environment(folder: Path) -> AsyncIterator[Environment]:
    opened = open_environment(folder, SMALL)
    yield opened
    opened.close()


def putting(database: Any, rows: dict[bytes, bytes]) -> Callable[[Any], int]:
    def work(txn: Any) -> int:
        for key, value in rows.items():
            txn.put(key, value, db=database)
        return len(rows)

    return work


def getting(database: Any, key: bytes) -> Callable[[Any], bytes | None]:
    return lambda txn: txn.get(key, None, database)


def counting(database: Any) -> Callable[[Any], int]:
    return lambda txn: txn.stat(database)["entries"]


def block_writer(environment: Environment) -> threading.Event:
    """Hold the writer in a job, so that the next ones wait and are committed together."""
    running, going_on = threading.Event(), threading.Event()

    def work(txn: Any) -> None:
        running.set()
        assert going_on.wait(TIMEOUT_S)

    environment.submit(work)
    assert running.wait(TIMEOUT_S)
    return going_on


# sharing


def test_a_folder_is_opened_once_a_process(folder: Path) -> None:
    one = open_environment(folder)
    other = open_environment(folder.parent / "." / folder.name)
    assert one is other
    one.close()
    database = other.database(b"rows")
    assert other.submit(putting(database, {b"a": b"1"})).result(TIMEOUT_S) == 1
    other.close()


def test_a_link_to_a_folder_is_the_folder(folder: Path, tmp_path: Path) -> None:
    one = open_environment(folder)
    (tmp_path / "link").symlink_to(folder)
    other = open_environment(tmp_path / "link")
    assert one is other
    one.close()
    other.close()


def test_after_the_last_close_a_folder_opens_anew(folder: Path) -> None:
    first = open_environment(folder)
    first.submit(putting(first.database(b"rows"), {b"a": b"1"})).result(TIMEOUT_S)
    first.close()
    again = open_environment(folder)
    assert again is not first
    assert again.read(getting(again.database(b"rows"), b"a")) == b"1"
    again.close()


def test_other_folders_are_other_environments(tmp_path: Path) -> None:
    one, other = open_environment(tmp_path / "a"), open_environment(tmp_path / "b")
    one.submit(putting(one.database(b"rows"), {b"a": b"1"})).result(TIMEOUT_S)
    assert other.read(getting(other.database(b"rows"), b"a")) is None
    one.close()
    other.close()


def test_threads_may_open_write_and_close_at_once(folder: Path) -> None:
    def use(name: int) -> None:
        for at in range(10):
            environment = open_environment(folder)
            database = environment.database(b"rows")
            key = f"{name}:{at}".encode()
            environment.submit(putting(database, {key: b"1"})).result(TIMEOUT_S)
            assert environment.read(getting(database, key)) == b"1"
            environment.close()

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(use, name) for name in range(4)]:
            done.result(TIMEOUT_S)
    environment = open_environment(folder)
    assert environment.read(counting(environment.database(b"rows"))) == 40
    environment.close()


def test_a_folder_opens_while_its_last_user_is_closing_it(folder: Path) -> None:
    """A last write holds up the close; whoever opens meanwhile waits for it, or shares."""
    with ThreadPoolExecutor(1) as pool:
        for at in range(30):
            environment = open_environment(folder)
            database = environment.database(b"rows")
            held = block_writer(environment)
            written = environment.submit(putting(database, {str(at).encode(): b"1"}))
            closed = pool.submit(environment.close)
            held.set()
            again = open_environment(folder)
            assert written.result(TIMEOUT_S) == 1
            closed.result(TIMEOUT_S)
            assert again.read(getting(again.database(b"rows"), str(at).encode())) == b"1"
            again.close()


def test_a_write_to_a_closed_environment_fails_and_does_not_hang(folder: Path) -> None:
    environment = open_environment(folder)
    database = environment.database(b"rows")
    environment.close()
    with pytest.raises((KiranaError, RuntimeError)):
        environment.submit(putting(database, {b"a": b"1"})).result(5)


# what can't be opened


@pytest.mark.parametrize("found", [b"2", b"", b"kirana"])
def test_a_folder_of_another_format_is_refused(folder: Path, found: bytes) -> None:
    folder.mkdir()
    with lmdb.open(str(folder), max_dbs=8) as raw, raw.begin(write=True) as txn:
        txn.put(b"format", found, db=raw.open_db(b"meta", txn))
    for _ in range(2):
        with pytest.raises(ConfigurationError, match="format") as caught:
            open_environment(folder)
        assert str(folder) in caught.value.message
    with lmdb.open(str(folder), max_dbs=8) as raw, raw.begin() as txn:
        assert txn.get(b"format", db=raw.open_db(b"meta", txn)) == found


def test_a_file_is_no_folder(folder: Path) -> None:
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


async def test_many_writers_at_once_all_land(environment: Environment) -> None:
    database = environment.database(b"rows")
    rows = [{f"{at}".encode(): b"x" * at} for at in range(500)]
    done = await asyncio.gather(*(environment.write(putting(database, each)) for each in rows))
    assert done == [1] * 500
    assert environment.read(counting(database)) == 500


async def test_a_job_sees_what_jobs_before_it_wrote(environment: Environment) -> None:
    database = environment.database(b"rows")

    def increment(txn: Any) -> int:
        number = int(txn.get(b"n", b"0", database)) + 1
        txn.put(b"n", str(number).encode(), db=database)
        return number

    found = await asyncio.gather(*(environment.write(increment) for _ in range(200)))
    assert found == list(range(1, 201))


async def test_a_job_that_fails_spoils_no_other_and_leaves_nothing(
    environment: Environment,
) -> None:
    database = environment.database(b"rows")

    def failing(txn: Any) -> None:
        txn.put(b"half", b"x", db=database)
        raise ValueError("a mistake")

    held = block_writer(environment)
    jobs = [environment.write(putting(database, {f"{at}".encode(): b"1"})) for at in range(20)]
    jobs.insert(10, environment.write(failing))  # type: ignore[arg-type]
    waiting = asyncio.gather(*jobs, return_exceptions=True)
    await asyncio.sleep(0)
    held.set()
    results = await waiting
    assert isinstance(results.pop(10), ValueError)
    assert results == [1] * 20
    assert environment.read(counting(database)) == 20
    assert environment.read(getting(database, b"half")) is None


async def test_a_caller_who_gives_up_stops_nobody_else(environment: Environment) -> None:
    database = environment.database(b"rows")
    held = block_writer(environment)
    given_up = asyncio.ensure_future(environment.write(putting(database, {b"a": b"1"})))
    staying = asyncio.ensure_future(environment.write(putting(database, {b"b": b"1"})))
    await asyncio.sleep(0)
    given_up.cancel()
    held.set()
    assert await staying == 1
    assert environment.read(getting(database, b"b")) == b"1"


async def test_the_map_grows_under_a_writer_and_its_readers(environment: Environment) -> None:
    database = environment.database(b"rows")
    jobs: list[Future[int]] = [
        environment.submit(putting(database, {f"{at:03}".encode(): bytes([at]) * 100_000}))
        for at in range(100)
    ]
    for at, job in enumerate(jobs):
        job.result(TIMEOUT_S)
        assert environment.read(getting(database, f"{at:03}".encode())) == bytes([at]) * 100_000
    assert environment.read(counting(database)) == 100


async def test_one_value_larger_than_the_map_is_written(environment: Environment) -> None:
    database = environment.database(b"rows")
    await environment.write(putting(database, {b"a": b"x" * (9 * SMALL)}))
    found = environment.read(getting(database, b"a"))
    assert found is not None
    assert len(found) == 9 * SMALL


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
        found = environment.read(lambda txn: txn.get(name.encode(), None, database))
        print("none" if found is None else len(found), flush=True)
environment.close()
"""


class Child:
    """A real process that writes and reads the same folder when it is told."""

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

    def tell(self, command: str, name: str, size: int = 0) -> str:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{command} {name} {size}\n")
        self.process.stdin.flush()
        return self.line()

    def stop(self) -> int:
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


def test_a_process_follows_the_map_that_another_has_grown(
    environment: Environment, child: Child
) -> None:
    database = environment.database(b"rows")
    for at in range(12):
        assert child.tell("put", f"child-{at}", 700_000) == "done"
        found = environment.read(getting(database, f"child-{at}".encode()))
        assert found == b"y" * 700_000
        job = environment.submit(putting(database, {f"here-{at}".encode(): b"z" * 300_000}))
        assert job.result(TIMEOUT_S) == 1
        assert child.tell("get", f"here-{at}") == "300000"
    assert environment.read(counting(database)) == 24
    assert child.stop() == 0


def test_a_process_writes_into_the_map_that_another_has_grown(
    environment: Environment, child: Child
) -> None:
    database = environment.database(b"rows")
    for at in range(5):
        assert child.tell("put", f"child-{at}", 2_000_000) == "done"
        job = environment.submit(putting(database, {f"here-{at}".encode(): b"z" * 1_500_000}))
        assert job.result(TIMEOUT_S) == 1
    assert environment.read(counting(database)) == 10


def test_a_database_opens_in_the_map_that_another_has_grown(
    environment: Environment, child: Child
) -> None:
    assert child.tell("put", "child", 5_000_000) == "done"
    database = environment.database(b"more")
    assert environment.submit(putting(database, {b"a": b"1"})).result(TIMEOUT_S) == 1


def test_two_processes_write_and_read_at_once(environment: Environment, child: Child) -> None:
    database = environment.database(b"rows")
    jobs = [
        environment.submit(putting(database, {f"here-{at}".encode(): b"z" * 50_000}))
        for at in range(60)
    ]
    for at in range(60):
        assert child.tell("put", f"child-{at}", 50_000) == "done"
        assert environment.read(getting(database, f"child-{at}".encode())) == b"y" * 50_000
    for at, job in enumerate(jobs):
        assert job.result(TIMEOUT_S) == 1
        assert child.tell("get", f"here-{at}") == "50000"
    assert environment.read(counting(database)) == 120


async def test_the_feature_store_sees_what_another_process_wrote(
    folder: Path, environment: Environment
) -> None:
    ours = LmdbFeatureStore.open(f"lmdb://{folder}?map_bytes={SMALL}", setting="features")
    script = (
        "import asyncio, sys\n"
        "from kirana.stores import open_feature_store\n"
        "from tests.store_calls import write_rows\n"
        "from tests.support import ByOrder\n"
        "async def main():\n"
        "    store = open_feature_store(sys.argv[1])\n"
        "    rows = {f'{at}'.encode(): b'x' * 1000 for at in range(20_000)}\n"
        "    codec = ByOrder(lambda value: (1, False))\n"
        "    await write_rows(store, list(rows), list(rows.values()), codec)\n"
        "    await store.close()\n"
        "asyncio.run(main())\n"
    )
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", script, f"lmdb://{folder}"],
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0
    assert await read_values(ours, [b"0", b"19999", b"20000"]) == [b"x" * 1000, b"x" * 1000, None]
    assert await write_rows(ours, [b"0"], [b"new"], ByOrder(lambda value: (2, False))) == 1
    await ours.close()


def test_what_was_acknowledged_is_there_after_a_kill(folder: Path) -> None:
    child = Child(folder)
    acknowledged = [f"row-{at}" for at in range(50)]
    for name in acknowledged:
        assert child.tell("put", name, 40_000) == "done"
    assert child.process.stdin is not None
    child.process.stdin.writelines(f"put more-{at} 40000\n" for at in range(200))
    child.process.stdin.flush()
    child.process.send_signal(signal.SIGKILL)
    child.process.communicate(timeout=TIMEOUT_S)
    environment = open_environment(folder, SMALL)
    database = environment.database(b"rows")
    for name in acknowledged:
        assert environment.read(getting(database, name.encode())) == b"y" * 40_000
    for at in range(200):
        found = environment.read(getting(database, f"more-{at}".encode()))
        assert found in (None, b"y" * 40_000)
    environment.close()


def test_a_killed_reader_does_not_hold_up_a_writer(environment: Environment, child: Child) -> None:
    database = environment.database(b"rows")
    assert child.tell("get", "nothing") == "none"
    child.kill()
    job = environment.submit(putting(database, {b"a": b"x" * (3 * SMALL)}))
    assert job.result(TIMEOUT_S) == 1
