"""An archive without Kafka: writes are spooled, and an archiver makes files of them."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO, Any

import httpx
import pyarrow.dataset as ds
import pytest

from kirana.actors.spool_archiver import SpoolArchiver
from kirana.catalog.revisions import LiveRevision
from kirana.edge import Edge
from kirana.edge.resources import Resources
from kirana.features.part import FEATURES
from kirana.ingest.journal import Pushed
from kirana.ingest.push import Push
from kirana.ingest.targets import SpooledTarget, StoreTarget
from kirana.metrics import Metrics
from kirana.part import Parts
from kirana.stores import open_feature_store
from kirana.streams.part import STREAMS
from kirana.streams.spool import FOLDER, SpoolWriter, closed_spools, waiting_messages
from kirana.streams.spooled import SpoolService
from tests.contract.test_archive import all_archived
from tests.support import Shop
from tests.unit.edge.conftest import client_of
from tests.waiting import wait_until

PUT, DELETE = "/v1/features/put", "/v1/features/delete"


class Wires:
    """The wiring of an archiver."""

    def __init__(self, shop: Shop, archive: Path) -> None:
        self.source = shop.source
        self.metrics = Metrics()
        update = {"archive": f"file://{archive}", "archive_period_s": 1}
        self._settings = shop.settings.model_copy(update=update)

    def settings(self, kind: object) -> Any:
        return self._settings


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return tmp_path / "archive"


@asynccontextmanager
async def served(shop: Shop, spool: SpoolWriter) -> AsyncIterator[httpx.AsyncClient]:
    streams = SpoolService(shop.features, shop.source, spool, archivers=[])
    live = LiveRevision(shop.source, [shop.features, streams])
    await live.start()
    resources = Resources(Parts({FEATURES: shop.features, STREAMS: streams}), live, shop.source)
    await resources.probes.check()
    async with client_of(Edge(resources)) as client:
        yield client
    await streams.close()


@asynccontextmanager
async def archiving(shop: Shop, archive: Path) -> AsyncIterator[SpoolArchiver]:
    archiver = SpoolArchiver(Wires(shop, archive))  # type: ignore[arg-type]
    task = asyncio.create_task(archiver.run())
    yield archiver
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def body(key: str, clicks: int) -> dict[str, Any]:
    columns = {"clicks": [clicks], "ctr": [0.5]}
    return {"group": "product.stats", "keys": {"product_id": [key]}, "columns": columns}


def rows_of(archive: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = ds.dataset(archive / "product.stats").to_table().to_pylist()
    return sorted(rows, key=lambda row: (row["_topic"], row["_offset"], row["_row"]))


async def test_writes_are_in_the_archive_once(shop: Shop, archive: Path) -> None:
    spool = SpoolWriter(archive, 0.2)
    async with served(shop, spool) as client, archiving(shop, archive) as archiver:
        for number in range(5):
            assert (await client.post(PUT, json=body("a", number))).status_code == 200
        delete = {"group": "product.stats", "keys": {"product_id": ["a"]}}
        assert (await client.post(DELETE, json=delete)).status_code == 200
        assert (await client.post(PUT, json={**body("a", 1), "columns": {}})).status_code == 400
        await all_archived(archiver)
    rows = rows_of(archive)
    assert [row["clicks"] for row in rows] == [0, 1, 2, 3, 4, None]
    assert [row["_offset"] for row in rows] == [*range(6)]
    assert all(row["_stored"] >= row["event_time"] for row in rows)
    assert list((archive / FOLDER).iterdir()) == []


WRITER = """
import sys
from pathlib import Path
from kirana.streams.spool import SpoolWriter
spool = SpoolWriter(Path(sys.argv[1]), 60)
spool.append(b"put", sys.argv[2].encode(), 1)
print("appended", flush=True)
sys.stdin.read()
"""


def spool_and_be_killed(archive: Path, message: dict[str, Any]) -> None:
    """Append a message in another process, which is killed while it appends the next one."""
    words = [sys.executable, "-c", WRITER, str(archive), json.dumps(message)]
    pipe = subprocess.PIPE
    with subprocess.Popen(words, stdin=pipe, stdout=pipe, text=True) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "appended\n"
        assert list(closed_spools(archive)) == [], "its writer lives"
        writer.kill()
    (file,) = (archive / FOLDER).glob("*.log")
    with file.open("ab") as stream:
        stream.write(b"\x20\x00\x00\x00\x00")


async def test_a_file_of_a_writer_that_was_killed_is_archived(shop: Shop, archive: Path) -> None:
    spool_and_be_killed(archive, body("killed", 7))
    async with archiving(shop, archive) as archiver:
        await all_archived(archiver)
    assert [row["clicks"] for row in rows_of(archive)] == [7]


def files(archive: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in archive.rglob("*.parquet")}


async def test_an_archiver_that_was_killed_before_it_removed_a_file_writes_the_same(
    shop: Shop, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = SpoolWriter(archive, 0.1)
    async with served(shop, spool) as client:
        for number in range(3):
            await client.post(PUT, json=body("a", number))
    with monkeypatch.context() as patched:
        patched.setattr("kirana.streams.spool.ClosedSpool.remove", lambda self: None)
        async with archiving(shop, archive) as archiver:
            await wait_until(lambda: archiver._writer.state.files > 1, "it was written twice")
    first = files(archive)
    async with archiving(shop, archive) as archiver:
        await all_archived(archiver)
    assert files(archive) == first
    assert len(rows_of(archive)) == 3


async def test_pushed_rows_are_in_the_archive(shop: Shop, archive: Path, tmp_path: Path) -> None:
    file = tmp_path / "product.stats.csv"
    file.write_text("product_id,clicks,ctr\n" + "".join(f"p{i},{i},0\n" for i in range(100)))
    job = Push([file], shop.source.load(shop.revision))
    store = open_feature_store(f"lmdb://{tmp_path}/data")
    spool = SpoolWriter(archive, 60)
    target = SpooledTarget(StoreTarget(store), spool, job.revision)
    pushed = await job.write(target, lambda rows: None)
    assert pushed["product.stats"] == Pushed(rows=100, written=100)
    spool.close()
    await store.close()
    async with archiving(shop, archive) as archiver:
        await all_archived(archiver)
    assert len(rows_of(archive)) == 100


def test_messages_after_one_that_the_disk_cut_off_are_kept(
    archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut_off(file: IO[bytes], data: bytes) -> None:
        file.write(data[:-1])
        raise OSError(28, "No space left on device")

    spool = SpoolWriter(archive, 60)
    spool.append(b"put", b"first", 1)
    with monkeypatch.context() as patched:
        patched.setattr("kirana.streams.spool._write_whole", cut_off)
        with pytest.raises(OSError, match="No space left"):
            spool.append(b"put", b"refused", 1)
    spool.append(b"delete", b"last", 1)
    assert waiting_messages(archive) == 2
    spool.close()
    found = []
    for closed in closed_spools(archive):
        with closed:
            found += [(message.kind, message.value) for message in closed.messages()]
    assert found == [(b"put", b"first"), (b"delete", b"last")]


async def test_a_spool_that_can_not_be_written_is_not_acknowledged(
    shop: Shop, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    spool = SpoolWriter(archive, 60)
    monkeypatch.setattr(spool, "append", full)
    async with served(shop, spool) as client:
        reply = await client.post(PUT, json=body("a", 1))
    assert reply.status_code == 503
    assert "No space left on device; the rows are in the store" in reply.json()["error"]["message"]
